//! Scenarios that drive the boundary, and what must be seen there.
