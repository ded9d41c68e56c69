//! Placeholders: what stands for a guest image, a file or a fact of the host in an argument.

use exeunt_linux::image::{Ending, ImageKind, ImageOptions};

/// What an argument is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Itself.
    Text(String),
    /// What is filled in.
    Hole(Placeholder),
}

/// Something that is filled in when a command is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{image:KIND exits=N ending=HOW}`: the path of a guest image.
    Image {
        /// Which.
        kind: ImageKind,
        /// What it does.
        options: ImageOptions,
    },
    /// `{file:NAME}`: the path of a file, looked for in the folders of the profile.
    File(String),
    /// `{text:NAME}`: the path of one of the profile's own texts.
    Text(String),
    /// `{program-dir}`: the folder that the program is in.
    ProgramDir,
    /// `{host:c-bit}`: where this processor has its C-bit.
    HostCBit,
}

/// Takes an argument apart. A brace that no small letter follows stands for itself, so that JSON can be written plainly.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        plain.push_str(before);
        if !after.starts_with(|first: char| first.is_ascii_lowercase()) {
            plain.push('{');
            rest = after;
            continue;
        }
        let (inside, behind) =
            after.split_once('}').ok_or_else(|| format!("'{{{after}' has no closing brace"))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Hole(placeholder(inside)?));
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn placeholder(inside: &str) -> Result<Placeholder, String> {
    let unknown = || {
        format!(
            "'{{{inside}}}' stands for nothing; there are {{image:KIND}}, {{file:NAME}}, {{text:NAME}}, \
             {{program-dir}} and {{host:c-bit}}"
        )
    };
    match inside.split_once(':') {
        None if inside == "program-dir" => Ok(Placeholder::ProgramDir),
        Some(("host", "c-bit")) => Ok(Placeholder::HostCBit),
        Some(("file", name)) if !name.is_empty() => Ok(Placeholder::File(name.into())),
        Some(("text", name)) if !name.is_empty() => Ok(Placeholder::Text(name.into())),
        Some(("image", image)) => image_of(image),
        _ => Err(unknown()),
    }
}

fn image_of(text: &str) -> Result<Placeholder, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let kind = ImageKind::from_name(name).ok_or_else(|| {
        format!("no image is named '{name}'; there are {}", names(ImageKind::ALL.map(ImageKind::name)))
    })?;
    let mut options = ImageOptions::default();
    for word in words {
        let wrong = || {
            let endings = names(Ending::ALL.map(Ending::name));
            format!(
                "'{word}' says nothing of an image; there are exits=N and ending=, which is one of {endings}"
            )
        };
        match word.split_once('=') {
            Some(("exits", number)) => options.exits = number.parse().map_err(|_| wrong())?,
            Some(("ending", name)) => options.ending = Ending::from_name(name).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    Ok(Placeholder::Image { kind, options })
}

fn names<const N: usize>(names: [&str; N]) -> String {
    names.join(", ")
}
