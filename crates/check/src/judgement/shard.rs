//! A part of a check, for machines that share it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The `index`th of `count` parts, from 1. A scene belongs to one of them, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: NonZeroU32,
    count: NonZeroU32,
}

impl Shard {
    /// The `index`th of `count`, from 1; nothing if there is no such part.
    #[must_use]
    pub fn new(index: u32, count: u32) -> Option<Self> {
        let (index, count) = (NonZeroU32::new(index)?, NonZeroU32::new(count)?);
        (index <= count).then_some(Self { index, count })
    }

    /// Whether the scene at this place in the order of all chosen ones, from 0, belongs to this part.
    #[must_use]
    pub const fn takes(self, place: usize) -> bool {
        place as u64 % self.count.get() as u64 == self.index.get() as u64 - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let numbers = parts.and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let shard = numbers.and_then(|(index, count)| Self::new(index, count));
        shard.ok_or_else(|| "a shard is I/N, with I from 1 to N".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_any_count_take_each_scene_once() {
        let scenes = crate::judge::scenes().count();
        for count in 1..=u32::try_from(scenes).unwrap() + 1 {
            let shards: Vec<_> = (1..=count).map(|index| Shard::new(index, count).unwrap()).collect();
            for place in 0..scenes {
                let taken = shards.iter().filter(|shard| shard.takes(place)).count();
                assert_eq!(taken, 1, "{place} of {scenes} in {count}");
            }
        }
    }

    #[test]
    fn a_shard_is_read_as_it_is_written_and_nothing_else_is() {
        for text in ["1/1", "1/3", "3/3", "4294967295/4294967295"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in
            ["", "/", "1", "0/0", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "1 / 2", "a/b", "1/4294967296"]
        {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
