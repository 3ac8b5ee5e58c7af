//! What a check came to.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The result of one check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What was found wrong; none if the server is well.
    pub failure: Option<Failure>,
    /// By what it was found well.
    pub sign: Sign,
    /// From its start to its end.
    pub took: Duration,
}

/// By what a server is found well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    /// It answered.
    Answer,
    /// Nothing came back where a refusal would have. Hosts send few refusals, so that it is a weak sign.
    Silence,
}

/// What was found wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// How far the check came.
    pub layer: Layer,
    /// What went wrong there.
    pub text: String,
}

/// How far a check came before it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Layer {
    /// The connection, or the datagram.
    L4,
    /// The TLS handshake.
    L6,
    /// The dialogue.
    L7,
    /// This machine: the check was not made.
    Local,
}

impl Failure {
    /// A failure at `layer`.
    pub fn new(layer: Layer, text: impl Into<String>) -> Self {
        Self { layer, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = match self.layer {
            Layer::L4 => "L4",
            Layer::L6 => "TLS",
            Layer::L7 => "L7",
            Layer::Local => "not checked:",
        };
        write!(f, "{layer} {}", self.text)
    }
}

impl Outcome {
    /// A good result.
    pub const fn good(took: Duration) -> Self {
        Self { failure: None, sign: Sign::Answer, took }
    }

    /// A bad one.
    pub const fn bad(failure: Failure, took: Duration) -> Self {
        Self { failure: Some(failure), sign: Sign::Answer, took }
    }

    /// Whether this machine could not make the check.
    pub fn is_local(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.layer == Layer::Local)
    }

    /// What a probe came to.
    pub fn of(probed: Result<Sign, Failure>, took: Duration) -> Self {
        match probed {
            Ok(sign) => Self { failure: None, sign, took },
            Err(failure) => Self::bad(failure, took),
        }
    }
}
