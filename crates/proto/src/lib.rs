//! Meaning of the bytes: exits, replies, conversions, GHCB requests, and the port between the halves.
