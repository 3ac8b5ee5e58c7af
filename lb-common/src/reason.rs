//! Why a packet was refused, and what else was done with one: each variant is one counter and one row of `weir status`.

macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every variant, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many counters one service has of this kind.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The word shown to operators and used in metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The words that explain this variant to an operator.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }

            /// The index of this variant's counter within its service's.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

counted! {
    /// A packet that was refused.
    Drop {
        /// The packet is addressed to a service but its headers are cut short or contradict each other.
        Malformed = "malformed",
        /// The source is in the listener's deny list, or not in its allow list.
        SourceDenied = "source-denied",
        /// The source opens connections faster than the listener's `conn_rate`.
        ConnRate = "conn-rate",
        /// No server of the pool can take a new flow.
        NoServer = "no-server",
        /// The server's pool closes the sessions of a server that is down.
        ServerDown = "server-down",
        /// The next hop toward the server has no resolved link-layer address or route.
        NoNextHop = "no-next-hop",
        /// The packet with its encapsulation exceeds the path to the server and may not be fragmented by us.
        TooBig = "too-big",
        /// A fragment whose first fragment was not seen.
        FragmentUnknown = "fragment-unknown",
        /// The flow table has no room for a new flow that would have to be remembered.
        FlowTableFull = "flow-table-full",
        /// Every source port toward the server is in use.
        NatPortsFull = "nat-ports-full",
        /// The NAT flow directory has no room where this flow belongs.
        NatTableFull = "nat-table-full",
        /// A packet of no known NAT flow that does not open one.
        NatNoFlow = "nat-no-flow",
        /// A client of a NAT service whose frames carry two VLAN tags, or a provider's: replies can be given one 802.1Q tag only.
        VlanTags = "vlan-tags",
        /// The source would open a NAT flow and is no host's address, stands for many, or is a VIP or SNAT address of this node, to which answers would
        /// come back for ever.
        MartianSource = "martian-source",
        /// An ICMP error that quotes no flow of the service.
        IcmpUnknown = "icmp-unknown",
        /// The packet could not be resized or sent by the driver.
        Driver = "driver",
        /// The service's tables are being changed or are inconsistent.
        Inconsistent = "inconsistent",
    }
}

counted! {
    /// Something that happened to a packet beside its forwarding.
    Note {
        /// An echo request to a VIP was answered.
        EchoReplied = "echo-replied",
        /// A TCP reset was returned.
        ResetSent = "reset-sent",
        /// An ICMP unreachable was returned.
        UnreachableSent = "unreachable-sent",
        /// An ICMP too-big was returned.
        TooBigSent = "too-big-sent",
        /// An ICMP error was sent after the flow that it quotes.
        IcmpForwarded = "icmp-forwarded",
        /// A fragment followed its first fragment.
        FragmentForwarded = "fragment-forwarded",
        /// A flow was remembered.
        FlowInserted = "flow-inserted",
        /// A flow found no room to be remembered and was sent to its slot's default.
        FlowNoRoom = "flow-no-room",
        /// A flow that had not yet been seen in two different seconds lost its place in the flow table to another.
        FlowDisplaced = "flow-displaced",
        /// A NAT flow was opened.
        NatOpened = "nat-opened",
        /// A NAT source port was taken before its rest was over.
        NatRestCut = "nat-rest-cut",
        /// The rate-limit table had no room for a source, which was let in.
        RateNoRoom = "rate-no-room",
        /// The MSS of a SYN was lowered.
        MssClamped = "mss-clamped",
    }
}

counted! {
    /// What became of a tunnelled packet on a server that opens tunnels itself.
    Decap {
        /// The tunnel was removed and the packet handed to the host.
        Decapsulated = "decapsulated",
        /// Passed as it came: the packet inside is for none of the VIPs, or the tunnel's header is not one that Weir writes.
        NotOurs = "not-ours",
        /// Passed as it came: a fragment of a tunnelled packet, which only the host can put together.
        Fragment = "fragment",
        /// Dropped: the packet inside is for a VIP but is cut short or contradicts itself.
        Malformed = "malformed",
        /// Dropped: a router marked congestion on a packet whose ends do not understand the mark (RFC 6040 s4.2).
        Congestion = "congestion",
        /// Dropped: the driver could not shorten the frame.
        Driver = "driver",
    }
}
