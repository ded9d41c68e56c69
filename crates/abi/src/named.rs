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

/// The same for a type that wraps its number: `ALL`, `name` and `from_name` are the type's own. A name is that of the
/// constant, unless the row gives another text before its line of documentation.
macro_rules! named_newtype {
    ($type:ident; $($name:ident = $value:expr, $about:literal;)*) => {
        $crate::named::named_newtype! { $type; $($name = $value, stringify!($name), $about;)* }
    };
    ($type:ident; $($name:ident = $value:expr, $text:expr, $about:expr;)*) => {
        impl $type {
            $(#[doc = $about] pub const $name: Self = Self($value);)*

            /// Each number that has a name, in the order of the source.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name, if the number has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }

            /// The number with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == Some(name))
            }
        }
    };
}
pub(crate) use named_newtype;

#[cfg(test)]
mod tests;
