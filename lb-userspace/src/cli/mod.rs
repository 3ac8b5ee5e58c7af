//! The operator's commands, one file each. A command writes data to stdout and words for people to stderr, both given as `impl Write`.

pub mod check;
pub mod server_setup;

/// How a command shows what it has to say: `-o`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All is well: 0.
    Fine,
    /// Something is unhealthy, or was refused: 1.
    Refused,
    /// The command cannot be carried out as it was given: 2.
    Usage,
}

impl Exit {
    /// The process's exit status.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Refused => 1,
            Self::Usage => 2,
        }
    }
}
