//! The tree that the rules look at: paths, texts, and for Rust the syntax, each parsed once.

use std::path::Path;

use proc_macro2::TokenStream;

use super::syntax::{self, Token};

/// All files of the project.
pub(super) struct Tree {
    files: Vec<File>,
}

/// One file of the project.
pub(super) struct File {
    /// From the root of the tree, with `/` between the parts.
    pub(super) path: String,
    /// Empty when the file is not UTF-8, and `binary` is set.
    pub(super) text: String,
    pub(super) binary: bool,
    rust: Option<Result<Code, syn::Error>>,
}

/// A Rust file that parses.
pub(super) struct Code {
    pub(super) ast: syn::File,
    /// The tokens in source order, also those inside macros, where the syntax tree is blind.
    pub(super) tokens: Vec<Token>,
}

impl Tree {
    /// `files` holds the path and the text, or no text when the file is not UTF-8.
    pub(super) fn new(files: Vec<(String, Option<String>)>) -> Self {
        let files = files.into_iter().map(|(path, text)| File::new(path, text)).collect();
        Self { files }
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|&(path, text)| (path.to_owned(), Some(text.to_owned()))).collect())
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files that parse. The rule `syntax` reports the others, so a rule may pass over them.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&File, &Code)> {
        self.files.iter().filter_map(|file| file.rust()?.as_ref().ok().map(|code| (file, code)))
    }
}

impl File {
    fn new(path: String, text: Option<String>) -> Self {
        let binary = text.is_none();
        let text = text.unwrap_or_default();
        let mut file = Self { path, text, binary, rust: None };
        if file.is_rust() && !binary {
            file.rust = Some(Code::parse(&file.text));
        }
        file
    }

    /// By its name, whether it parses or not.
    pub(super) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// `None` when the file is not Rust or not text.
    pub(super) fn rust(&self) -> Option<&Result<Code, syn::Error>> {
        self.rust.as_ref()
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The directory under `crates/` that the file is in.
    pub(super) fn room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split_once('/').map(|(room, _)| room)
    }
}

impl Code {
    fn parse(text: &str) -> Result<Self, syn::Error> {
        let ast = syn::parse_file(text)?;
        let stream: TokenStream = text.parse()?;
        Ok(Self { ast, tokens: syntax::flatten(stream) })
    }
}
