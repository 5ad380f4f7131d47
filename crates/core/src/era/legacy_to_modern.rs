//! A legacy client at a modern server: what each message becomes, as text (no I/O).
