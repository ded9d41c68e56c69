//! Places members as a C compiler of the target does.

use super::ctype::{Member, Scalar, Type};
use crate::flatten::{Node, Shape};
use crate::target::Target;

/// The rules of one target, in a struct that may be packed.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) target: Target,
    pub(super) packed: bool,
}

/// Members with their offsets, and what they need together.
pub(super) struct Placed {
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) nodes: Vec<Node>,
}

impl Rules {
    /// Places members one after the other, each at the next multiple of its alignment.
    pub(super) fn place_struct(self, members: &[Member]) -> Placed {
        let mut end: u64 = 0;
        let mut align = 1;
        let mut nodes = Vec::new();
        for member in members {
            let (size, needs, shapes) = self.measure(member);
            let offset = end.next_multiple_of(needs);
            end = offset.saturating_add(size);
            align = needs.max(align);
            nodes.extend(shapes.into_iter().map(|node| Node { offset, ..node }));
        }
        Placed { size: end.next_multiple_of(align), align, nodes }
    }

    /// Places members over each other.
    fn place_union(self, members: &[Member]) -> Placed {
        let mut size = 0;
        let mut align = 1;
        let mut nodes = Vec::new();
        for member in members {
            let (bytes, needs, shapes) = self.measure(member);
            size = bytes.max(size);
            align = needs.max(align);
            nodes.extend(shapes);
        }
        Placed { size: size.next_multiple_of(align), align, nodes }
    }

    /// Size and alignment of a member, and its nodes: one, but for a run of bit-fields.
    fn measure(self, member: &Member) -> (u64, u64, Vec<Node>) {
        let name = member.name.to_string();
        let one = |size, shape| vec![Node { name, offset: 0, size, shape }];
        match member.ty {
            Type::Scalar(scalar) => {
                let (size, align) = self.scalar(scalar);
                (size, align, one(size, Shape::Scalar { type_name: scalar.name().to_string() }))
            }
            Type::Array(scalar, count) => {
                let (size, align) = self.scalar(scalar);
                let size = size.saturating_mul(count);
                (size, align, one(size, Shape::Scalar { type_name: format!("{}[{count}]", scalar.name()) }))
            }
            Type::Flexible(of) => {
                let align = if self.packed { 1 } else { 4 };
                (0, align, one(0, Shape::Scalar { type_name: format!("struct {of}[]") }))
            }
            Type::Struct(members) => {
                // A struct inside of a packed one is laid out by its own rules; those of the uapi need none.
                let placed = self.place_struct(members);
                (placed.size, placed.align, one(placed.size, Shape::Group(placed.nodes)))
            }
            Type::Union(members) => {
                let placed = self.place_union(members);
                (placed.size, placed.align, one(placed.size, Shape::Group(placed.nodes)))
            }
            Type::Bits(storage, fields) => {
                let (size, align) = self.scalar(storage);
                let mut low: u64 = 0;
                let mut nodes = Vec::new();
                for (name, width) in fields {
                    let type_name = storage.name().to_string();
                    let shape = Shape::Bits { type_name, low, width: *width };
                    nodes.push(Node { name: (*name).to_string(), offset: 0, size, shape });
                    low = low.saturating_add(*width);
                }
                (size, align, nodes)
            }
        }
    }

    fn scalar(self, scalar: Scalar) -> (u64, u64) {
        let size = match scalar {
            Scalar::U8 | Scalar::Char => 1,
            Scalar::U16 => 2,
            Scalar::U32 => 4,
            Scalar::U64 => 8,
            Scalar::UnsignedLong => self.target.word_bytes(),
        };
        (size, if self.packed { 1 } else { self.target.align_of_scalar(size) })
    }
}
