//! From nested members to one list of fields, and from `kvm_run` to one struct for each exit.

use crate::tree::{Bits, Field, Layout};
use std::collections::BTreeMap;

/// A member of a struct, placed.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Empty for an anonymous member.
    pub(crate) name: String,
    /// From the start of the struct or union around it.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) shape: Shape,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Scalar {
        type_name: String,
    },
    Bits {
        type_name: String,
        /// From the member's offset.
        low: u64,
        width: u64,
    },
    Group(Vec<Node>),
}

const RUN: &str = "kvm_run";

/// Adds a struct to a set of layouts. `kvm_run` falls into its head and the members of its exit union.
pub(crate) fn add(layouts: &mut BTreeMap<String, Layout>, name: &str, size: u64, members: &[Node]) {
    let mut fields = Vec::new();
    for member in members {
        let Shape::Group(union) = &member.shape else {
            collect(&mut fields, "", 0, member);
            continue;
        };
        if name != RUN || !member.name.is_empty() {
            collect(&mut fields, "", 0, member);
            continue;
        }
        for exit in union {
            let place = member.offset.saturating_add(exit.offset);
            match &exit.shape {
                Shape::Group(parts) if !exit.name.is_empty() => {
                    let mut fields = Vec::new();
                    for part in parts {
                        collect(&mut fields, "", 0, part);
                    }
                    let layout = Layout { size: exit.size, place: Some(place), fields };
                    layouts.insert(format!("{RUN}.{}", exit.name), layout);
                }
                _ => collect(&mut fields, "", member.offset, exit),
            }
        }
    }
    layouts.insert(name.to_string(), Layout { size, place: None, fields });
}

fn collect(fields: &mut Vec<Field>, prefix: &str, start: u64, node: &Node) {
    let offset = start.saturating_add(node.offset);
    let path = match (prefix.is_empty(), node.name.is_empty()) {
        (_, true) => prefix.to_string(),
        (true, false) => node.name.clone(),
        (false, false) => format!("{prefix}.{}", node.name),
    };
    match &node.shape {
        Shape::Scalar { type_name } => {
            fields.push(Field { path, offset, size: node.size, type_name: type_name.clone(), bits: None });
        }
        Shape::Bits { type_name, low, width } => {
            // The same bits can be told from any byte before them; they are told from the byte that holds the first.
            let low_byte = low / 8;
            let bits = Bits { low: low % 8, width: *width };
            let size = bits.low.saturating_add(*width).div_ceil(8);
            let offset = offset.saturating_add(low_byte);
            fields.push(Field { path, offset, size, type_name: type_name.clone(), bits: Some(bits) });
        }
        Shape::Group(members) => {
            for member in members {
                collect(fields, &path, offset, member);
            }
        }
    }
}
