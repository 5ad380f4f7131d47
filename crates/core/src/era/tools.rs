//! What the tools of a modern server want in HTTP headers, learnt from its lists (no I/O).
