//! C types as data.

/// A scalar type of the uapi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    U8,
    U16,
    U32,
    U64,
    Char,
    /// `unsigned long`: as wide as a pointer.
    UnsignedLong,
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Empty for an anonymous struct or union.
    pub(super) name: &'static str,
    pub(super) ty: Type,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    Scalar(Scalar),
    Array(Scalar, u64),
    Struct(&'static [Member]),
    Union(&'static [Member]),
    /// Bit-fields that together fill their storage unit: names and widths.
    Bits(Scalar, &'static [(&'static str, u64)]),
    /// A flexible array of this struct, whose members need no more than 4 bytes of alignment.
    Flexible(&'static str),
}

pub(super) const fn u8(name: &'static str) -> Member {
    Member { name, ty: Type::Scalar(Scalar::U8) }
}

pub(super) const fn u16(name: &'static str) -> Member {
    Member { name, ty: Type::Scalar(Scalar::U16) }
}

pub(super) const fn u32(name: &'static str) -> Member {
    Member { name, ty: Type::Scalar(Scalar::U32) }
}

pub(super) const fn u64(name: &'static str) -> Member {
    Member { name, ty: Type::Scalar(Scalar::U64) }
}

pub(super) const fn ulong(name: &'static str) -> Member {
    Member { name, ty: Type::Scalar(Scalar::UnsignedLong) }
}

pub(super) const fn u8s(name: &'static str, count: u64) -> Member {
    Member { name, ty: Type::Array(Scalar::U8, count) }
}

pub(super) const fn u32s(name: &'static str, count: u64) -> Member {
    Member { name, ty: Type::Array(Scalar::U32, count) }
}

pub(super) const fn u64s(name: &'static str, count: u64) -> Member {
    Member { name, ty: Type::Array(Scalar::U64, count) }
}

pub(super) const fn ulongs(name: &'static str, count: u64) -> Member {
    Member { name, ty: Type::Array(Scalar::UnsignedLong, count) }
}

pub(super) const fn chars(name: &'static str, count: u64) -> Member {
    Member { name, ty: Type::Array(Scalar::Char, count) }
}

pub(super) const fn group(name: &'static str, members: &'static [Member]) -> Member {
    Member { name, ty: Type::Struct(members) }
}

pub(super) const fn union(name: &'static str, members: &'static [Member]) -> Member {
    Member { name, ty: Type::Union(members) }
}

pub(super) const fn bits(storage: Scalar, fields: &'static [(&'static str, u64)]) -> Member {
    Member { name: "", ty: Type::Bits(storage, fields) }
}

pub(super) const fn flexible(name: &'static str, of: &'static str) -> Member {
    Member { name, ty: Type::Flexible(of) }
}

impl Scalar {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Char => "char",
            Self::UnsignedLong => "unsigned long",
        }
    }
}
