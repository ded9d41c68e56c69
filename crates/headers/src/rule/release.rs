//! The releases whose headers the registry knows.

/// A kernel release, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Linux 5.10.
    Linux5_10,
    /// Linux 5.17.
    Linux5_17,
    /// Linux 6.1.
    Linux6_1,
    /// Linux 6.12.
    Linux6_12,
    /// Linux 7.2.
    Linux7_2,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Self; 5] =
        [Self::Linux5_10, Self::Linux5_17, Self::Linux6_1, Self::Linux6_12, Self::Linux7_2];

    /// The name of its dialect.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux5_10 => "linux-5.10",
            Self::Linux5_17 => "linux-5.17",
            Self::Linux6_1 => "linux-6.1",
            Self::Linux6_12 => "linux-6.12",
            Self::Linux7_2 => "linux-7.2",
        }
    }

    /// Version and patch level.
    #[must_use]
    pub const fn version(self) -> (u64, u64) {
        match self {
            Self::Linux5_10 => (5, 10),
            Self::Linux5_17 => (5, 17),
            Self::Linux6_1 => (6, 1),
            Self::Linux6_12 => (6, 12),
            Self::Linux7_2 => (7, 2),
        }
    }

    /// The newest release that is not newer than headers whose `LINUX_VERSION_CODE` is this.
    #[must_use]
    pub fn of_version_code(code: u64) -> Option<Self> {
        let version = (code >> 16, (code >> 8) & 0xff);
        Self::ALL.into_iter().rev().find(|release| release.version() <= version)
    }
}
