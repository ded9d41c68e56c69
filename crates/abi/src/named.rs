//! Numbers with names, and the way back from the name.

/// Constants of one type with `ALL`, `name` and `from_name` beside them, for a module that holds nothing else that is
/// called so. Two equal numbers are an unreachable pattern, which the compiler reports.
macro_rules! named {
    ($type:ty; $($name:ident = $value:expr, $about:literal;)*) => {
        $(#[doc = $about] pub const $name: $type = $value;)*

        /// Each number with its name, in the order of the source.
        pub const ALL: &[($type, &str)] = &[$(($name, stringify!($name))),*];

        /// The name of a number, if it has one.
        #[must_use]
        pub const fn name(number: $type) -> Option<&'static str> {
            match number {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }

        /// The number with this name.
        #[must_use]
        pub fn from_name(name: &str) -> Option<$type> {
            match name {
                $(stringify!($name) => Some($name),)*
                _ => None,
            }
        }
    };
}
pub(crate) use named;

#[cfg(test)]
mod tests;
