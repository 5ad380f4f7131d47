//! A modern client at a legacy server: what each message becomes, as text (no I/O).
