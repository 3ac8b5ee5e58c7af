//! Why an advert counts for nothing.

use thiserror::Error;

/// One counter each, none of them logged per packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Error)]
pub enum Refusal {
    /// RFC 9568 s5.1.1.3: a router in between would have lowered it.
    #[error("its TTL or hop limit is too low: a router lies between, or its sender does not set 255")]
    HopLimit,
    /// Source and destination are not of one family.
    #[error("source and destination are of different families")]
    Families,
    /// No complete header.
    #[error("it is shorter than a header")]
    Short,
    /// Neither 2 nor 3, or not that of the router.
    #[error("it is of another version")]
    Version,
    /// RFC 9568 s5.2.2: adverts are the only type.
    #[error("it is no advert")]
    Type,
    /// Virtual router id 0.
    #[error("it names no virtual router")]
    NoRouter,
    /// Not for this virtual router.
    #[error("it is of another virtual router")]
    OtherRouter,
    /// Not for any virtual router of this node, and it names an address of one: the nodes' files differ.
    #[error("it is of virtual router {0}, and names an address of this one")]
    OtherNumber(u8),
    /// The count says 0.
    #[error("it has no address")]
    NoAddress,
    /// Not as long as the count of addresses makes it.
    #[error("its length contradicts its count of addresses")]
    Length,
    /// RFC 9568 s5.2.8.
    #[error("its checksum is wrong")]
    Checksum,
    /// An interval of 0.
    #[error("it has no interval")]
    NoInterval,
    /// Version 2: not the kind of authentication that is agreed on, or one that is not supported (2, of IPsec).
    #[error("its authentication is of another type")]
    AuthType,
    /// Version 2: another password.
    #[error("its password is wrong")]
    Password,
    /// It has no trailer, and keys are configured.
    #[error("it is not authenticated")]
    Unauthenticated,
    /// It has a trailer, and there are no keys here.
    #[error("it is authenticated, and this node has no keys")]
    Sealed,
    /// Its trailer is not one of this version.
    #[error("its authentication cannot be read")]
    Trailer,
    /// The key is not in the ring.
    #[error("its key is not known")]
    UnknownKey,
    /// The MAC is not that of the key.
    #[error("its MAC is wrong")]
    Mac,
    /// A sequence number that has been seen, or a smaller one.
    #[error("it is a replay")]
    Replayed,
    /// The sender's epoch is before one that has been seen.
    #[error("it is from before its sender's last restart, or the sender's clock went back")]
    Stale,
    /// As many senders are known as are remembered.
    #[error("too many routers send adverts")]
    TooManySources,
    /// No router speaks from there.
    #[error("its source is no router's address")]
    Source,
    /// The source is no configured peer.
    #[error("its source is not a peer")]
    NotAPeer,
    /// The source is this router's own address.
    #[error("its source is this router's own address")]
    OwnAddress,
    /// The router does not run.
    #[error("this router is not started")]
    NotRunning,
}
