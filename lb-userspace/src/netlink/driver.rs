//! The request socket of route netlink: reads links, routes, neighbours and addresses, writes addresses and neighbour entries.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a netlink socket and the deadline of its answers")]

use std::{io, net::IpAddr, time::Duration};

use futures_util::StreamExt as _;
use rtnetlink::{
    Handle,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage, address::AddressMessage, link::LinkMessage, neighbour::NeighbourMessage, route::RouteMessage,
    },
    proto::Connection,
};
use thiserror::Error;

use super::{
    AssignedAddress, Link, Neighbour, NeighbourKey, addresses, neighbours, routes,
    routes::{DefaultRoute, Route},
};

/// The kernel answers within microseconds; an answer that the decoder could not read never comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A dump that changes while it is read says so and is read again, at most so often.
const DUMPS_MAX: usize = 5;

/// A request socket. It needs no task: whoever asks drives it until the answer is there. A request that is dropped half-way may still be performed.
pub struct Netlink {
    connection: Connection<RouteNetlinkMessage>,
    handle: Handle,
}

/// Why the socket could not be opened.
#[derive(Debug, Error)]
#[error("failed to open a route netlink socket")]
pub struct OpenError(#[source] pub io::Error);

/// Why a request brought no answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The kernel refused.
    #[error("the kernel refused the netlink request: {0}")]
    Refused(#[source] io::Error),
    /// No answer within 2 s.
    #[error("the kernel did not answer the netlink request within {ANSWER_TIMEOUT:?}")]
    TimedOut,
    /// The socket is gone.
    #[error("the netlink socket is closed")]
    Closed,
}

impl RequestError {
    /// What to do about it, on a line of its own, where that is known.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            // linux net/core/neighbour.c, neigh_alloc
            Self::Refused(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                "\nhint: the neighbour table is full: raise sysctl net.ipv4.neigh.default.gc_thresh3, or that of ipv6"
            }
            Self::Refused(_) | Self::TimedOut | Self::Closed => "",
        }
    }
}

/// Why an address could not be added or removed.
#[derive(Debug, Error)]
pub enum AddressError {
    /// It is there already, on this interface.
    #[error("address {address} is already assigned to interface {ifindex}")]
    AlreadyAssigned {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifindex: u32,
    },
    /// It is not there.
    #[error("address {address} is not assigned to interface {ifindex}")]
    NotAssigned {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifindex: u32,
    },
    /// There is no such interface.
    #[error("failed to change address {address}: there is no interface {ifindex}")]
    NoLink {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifindex: u32,
    },
    /// Anything else.
    #[error("failed to change address {address} of interface {ifindex}")]
    Request {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifindex: u32,
        /// Why.
        source: RequestError,
    },
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The system call's.
    pub fn open() -> Result<Self, OpenError> {
        // Without its receiver nothing unasked-for is queued.
        let (connection, handle, _unasked) = rtnetlink::new_connection().map_err(OpenError)?;
        Ok(Self { connection, handle })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn links(&mut self) -> Result<Vec<Link>, RequestError> {
        let answer = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
        let link = |message| if let RouteNetlinkMessage::NewLink(link) = message { Some(Link::from_message(&link)) } else { None };
        Ok(answer.into_iter().filter_map(link).collect())
    }

    /// All addresses of this host, of both families.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn addresses(&mut self) -> Result<Vec<AssignedAddress>, RequestError> {
        let answer = self.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let address =
            |message| if let RouteNetlinkMessage::NewAddress(address) = message { AssignedAddress::from_message(&address) } else { None };
        Ok(answer.into_iter().filter_map(address).collect())
    }

    /// Adds `address` as a VIP: /32 or /128, no prefix route, no duplicate detection, with our mark.
    ///
    /// # Errors
    /// [`AddressError::AlreadyAssigned`] if the interface has it with that prefix; [`AddressError::NoLink`]; else [`AddressError::Request`].
    pub async fn add_address(&mut self, address: IpAddr, ifindex: u32) -> Result<(), AddressError> {
        let message = RouteNetlinkMessage::NewAddress(addresses::vip(address, ifindex));
        let added = self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await;
        added.map(|_| ()).map_err(|error| AddressError::new(address, ifindex, error))
    }

    /// Removes `address`/32 or /128, whoever added it.
    ///
    /// # Errors
    /// [`AddressError::NotAssigned`] if the interface does not have it; [`AddressError::NoLink`]; else [`AddressError::Request`].
    pub async fn remove_address(&mut self, address: IpAddr, ifindex: u32) -> Result<(), AddressError> {
        let message = RouteNetlinkMessage::DelAddress(addresses::host(address, ifindex));
        let removed = self.request(message, NLM_F_ACK).await;
        removed.map(|_| ()).map_err(|error| AddressError::new(address, ifindex, error))
    }

    /// The kernel's route to `destination` for a packet of this host, learned path MTU included.
    ///
    /// # Errors
    /// [`RequestError::TimedOut`] and [`RequestError::Closed`]; a refusal is [`Route::None`].
    pub async fn route(&mut self, destination: IpAddr) -> Result<Route, RequestError> {
        match self.request(RouteNetlinkMessage::GetRoute(routes::request(destination)), 0).await {
            Ok(answer) => Ok(answer.iter().find_map(|message| route_in(destination, message)).unwrap_or(Route::None)),
            // ENETUNREACH, EHOSTUNREACH (unreachable), EACCES (prohibit), EINVAL (blackhole), EAGAIN (throw): all mean no.
            Err(RequestError::Refused(_)) => Ok(Route::None),
            Err(error @ (RequestError::TimedOut | RequestError::Closed)) => Err(error),
        }
    }

    /// The default routes of both families.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, RequestError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answer = self.dump(&RouteNetlinkMessage::GetRoute(message)).await?;
            let default =
                |message| if let RouteNetlinkMessage::NewRoute(route) = message { DefaultRoute::from_message(&route) } else { None };
            found.extend(answer.into_iter().filter_map(default));
        }
        Ok(found)
    }

    /// One neighbour entry; none if there is none, or no such link.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn neighbour(&mut self, key: NeighbourKey) -> Result<Option<Neighbour>, RequestError> {
        match self.request(RouteNetlinkMessage::GetNeighbour(neighbours::read(key)), 0).await {
            Ok(answer) => Ok(answer.iter().find_map(neighbour_in).map(|(_, neighbour)| neighbour)),
            Err(RequestError::Refused(error)) if is_one_of(&error, &[libc::ENOENT, libc::ENODEV]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All neighbour entries of both families.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn neighbours(&mut self) -> Result<Vec<(NeighbourKey, Neighbour)>, RequestError> {
        let answer = self.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())).await?;
        Ok(answer.iter().filter_map(neighbour_in).collect())
    }

    /// Asks the kernel to resolve a neighbour and keep it resolved, with our mark.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn hold_neighbour(&mut self, key: NeighbourKey) -> Result<(), RequestError> {
        let message = RouteNetlinkMessage::NewNeighbour(neighbours::hold(key));
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(|_| ())
    }

    /// Makes a held neighbour an ordinary entry again. One that is gone is no error.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn release_neighbour(&mut self, key: NeighbourKey) -> Result<(), RequestError> {
        let message = RouteNetlinkMessage::NewNeighbour(neighbours::release(key));
        gone_is_fine(self.request(message, NLM_F_ACK | NLM_F_REPLACE).await)
    }

    /// Deletes a neighbour entry. One that is gone is no error.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn delete_neighbour(&mut self, key: NeighbourKey) -> Result<(), RequestError> {
        gone_is_fine(self.request(RouteNetlinkMessage::DelNeighbour(neighbours::read(key)), NLM_F_ACK).await)
    }

    async fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        let mut answer = self.exchange(message.clone(), NLM_F_DUMP).await?;
        for _ in 1..DUMPS_MAX {
            if !answer.is_interrupted {
                break;
            }
            answer = self.exchange(message.clone(), NLM_F_DUMP).await?;
        }
        Ok(answer.messages)
    }

    async fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        self.exchange(message, flags).await.map(|answer| answer.messages)
    }

    async fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, RequestError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let Ok(mut replies) = self.handle.request(request) else { return Err(RequestError::Closed) };
        let collect = async {
            let mut answer = Answer::default();
            while let Some(reply) = replies.next().await {
                answer.is_interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
                if let NetlinkPayload::InnerMessage(message) = reply.payload {
                    answer.messages.push(message);
                } else if let NetlinkPayload::Error(error) = reply.payload {
                    return Err(RequestError::Refused(error.to_io()));
                }
            }
            Ok(answer)
        };
        // Both arms are dropped together: nobody waits for the rest of an answer that was given up.
        let exchange = async {
            tokio::select! {
                answer = collect => answer,
                () = &mut self.connection => Err(RequestError::Closed),
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(RequestError::TimedOut))
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    is_interrupted: bool,
}

impl AddressError {
    fn new(address: IpAddr, ifindex: u32, error: RequestError) -> Self {
        match error {
            RequestError::Refused(error) if is_one_of(&error, &[libc::EEXIST]) => Self::AlreadyAssigned { address, ifindex },
            RequestError::Refused(error) if is_one_of(&error, &[libc::EADDRNOTAVAIL]) => Self::NotAssigned { address, ifindex },
            RequestError::Refused(error) if is_one_of(&error, &[libc::ENODEV]) => Self::NoLink { address, ifindex },
            source @ (RequestError::Refused(_) | RequestError::TimedOut | RequestError::Closed) => {
                Self::Request { address, ifindex, source }
            }
        }
    }
}

fn route_in(destination: IpAddr, message: &RouteNetlinkMessage) -> Option<Route> {
    if let RouteNetlinkMessage::NewRoute(route) = message { Some(Route::from_message(destination, route)) } else { None }
}

fn neighbour_in(message: &RouteNetlinkMessage) -> Option<(NeighbourKey, Neighbour)> {
    if let RouteNetlinkMessage::NewNeighbour(neighbour) = message { Neighbour::from_message(neighbour) } else { None }
}

fn gone_is_fine(result: Result<Vec<RouteNetlinkMessage>, RequestError>) -> Result<(), RequestError> {
    match result {
        Err(RequestError::Refused(error)) if is_one_of(&error, &[libc::ENOENT, libc::ENODEV, libc::ENXIO]) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn is_one_of(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
