//! The two programs by which probes take the data path's way: loaded, attached to interfaces for as long as this process holds them, and told the ways.
//!
//! Nothing of it is pinned: it is gone with the process, or with the last check that wants it.

use std::{collections::BTreeMap, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
    programs::{ProgramError, SchedClassifier, TcAttachType, links::LinkError, tc},
    util::KernelVersion,
};
use lb_common::{
    address::Address,
    ways::{WAY_FLOWS_MAX, WAYS_MAX, Way, WayFlow},
};

use super::{
    cell::Cell,
    clock_io::smallest_loader,
    load::{LoadError, refusal_of_program},
    naming,
    object::object,
    privileges_io,
};

/// Why probes cannot take the data path's way.
#[derive(Debug, thiserror::Error)]
pub enum WaysError {
    /// A program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map cannot be used.
    #[error("failed to use the map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// The refusal.
        source: Box<MapError>,
    },
    /// A program cannot be attached.
    #[error(
        "failed to attach {program} to {interface}\nhint: {}; kernels before 6.6 need the clsact queueing discipline (CONFIG_NET_SCH_INGRESS)",
        privileges_io::HINT
    )]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// A link cannot be taken.
    #[error("failed to hold the link of {interface}")]
    Link {
        /// The interface.
        interface: String,
        /// The refusal.
        source: LinkError,
    },
}

/// How programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// By links, which vanish with the process; Linux 6.6.
    Tcx,
    /// As filters of the queueing discipline clsact, which a process that is killed leaves behind until the next one.
    Clsact,
}

impl Hook {
    /// The best that this kernel has.
    pub fn of_kernel() -> Self {
        if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0)) { Self::Tcx } else { Self::Clsact }
    }
}

const PROGRAMS: [(&str, TcAttachType); 2] =
    [(naming::WAY_OUT_PROGRAM, TcAttachType::Egress), (naming::WAY_BACK_PROGRAM, TcAttachType::Ingress)];

/// The programs, loaded. Dropping it detaches them.
#[derive(Debug)]
pub struct Detour {
    object: Ebpf,
    hook: Hook,
    /// By index, the interfaces that have them, and the links.
    attached: BTreeMap<u32, (String, Vec<tc::SchedClassifierLink>)>,
}

impl Detour {
    /// Loads the programs, attached nowhere.
    ///
    /// # Errors
    /// [`WaysError::Load`]; nothing stays behind.
    pub fn load(hook: Hook) -> Result<Self, WaysError> {
        let mut loader = smallest_loader();
        loader.map_max_entries(naming::WAYS, WAYS_MAX).map_max_entries(naming::WAY_FLOWS, WAY_FLOWS_MAX);
        let mut object = loader.load(object()?).map_err(LoadError::from_object)?;
        for (name, _) in PROGRAMS {
            let loaded = program(&mut object, name).and_then(SchedClassifier::load);
            loaded.map_err(|error| refusal_of_program(name, error))?;
        }
        Ok(Self { object, hook, attached: BTreeMap::new() })
    }

    /// Has sockets with this mark take this way.
    ///
    /// # Errors
    /// [`WaysError::Map`].
    pub fn set(&mut self, mark: u32, way: &Way) -> Result<(), WaysError> {
        self.ways()?.insert(mark, Cell(*way), 0).map_err(unusable(naming::WAYS))
    }

    /// Has the packets of sockets with this mark refused. Fine if they are.
    ///
    /// # Errors
    /// [`WaysError::Map`].
    pub fn remove(&mut self, mark: u32) -> Result<(), WaysError> {
        match self.ways()?.remove(&mark) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unusable(naming::WAYS)(error)),
        }
    }

    fn ways(&mut self) -> Result<HashMap<&mut MapData, u32, Cell<Way>>, WaysError> {
        let map = self.object.map_mut(naming::WAYS).expect("the object defines every map that naming has");
        HashMap::try_from(map).map_err(unusable(naming::WAYS))
    }

    /// Attaches the programs to exactly these interfaces, by index. Gives what was refused; the others have them.
    pub fn attach(&mut self, interfaces: &BTreeMap<u32, String>) -> Vec<WaysError> {
        // An interface that was renamed keeps them. The links of one that is gone lead nowhere, and are let go of.
        self.attached.retain(|index, _| interfaces.contains_key(index));
        let mut refused = Vec::new();
        for (index, name) in interfaces {
            if self.attached.contains_key(index) {
                continue;
            }
            match self.attach_to(name) {
                Ok(links) => drop(self.attached.insert(*index, (name.clone(), links))),
                Err(error) => refused.push(error),
            }
        }
        refused
    }

    fn attach_to(&mut self, interface: &str) -> Result<Vec<tc::SchedClassifierLink>, WaysError> {
        let mut links = Vec::new();
        for (name, kind) in PROGRAMS {
            let refused = |source| WaysError::Attach { program: name, interface: interface.to_owned(), source: Box::new(source) };
            let program = program(&mut self.object, name).map_err(refused)?;
            let options = match self.hook {
                Hook::Tcx => tc::TcAttachOptions::TcxOrder(aya::programs::LinkOrder::default()),
                Hook::Clsact => {
                    // It may be there already; what else is wrong with it shows when the program is attached. Filters that a killed process left go.
                    let _ = tc::qdisc_add_clsact(interface);
                    let _ = tc::qdisc_detach_program(interface, kind, name);
                    tc::TcAttachOptions::Netlink(tc::NlOptions::default())
                }
            };
            let id = program.attach_with_options(interface, kind, options).map_err(refused)?;
            let link = program.take_link(id).map_err(refused)?;
            links.push(link);
        }
        Ok(links)
    }

    /// Who saw which conversations pass.
    ///
    /// # Errors
    /// [`WaysError::Map`].
    pub fn witness(&self) -> Result<Witness, WaysError> {
        let unusable = unusable(naming::WAY_FLOWS);
        let Some(Map::LruHashMap(data)) = self.object.map(naming::WAY_FLOWS) else {
            return Err(unusable(MapError::InvalidMapType { map_type: 0 }));
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| unusable(error.into()))?;
        let map = MapData::from_fd(fd).map_err(&unusable)?;
        let map = HashMap::try_from(Map::LruHashMap(map)).map_err(&unusable)?;
        Ok(Witness(Arc::new(map)))
    }
}

/// Tells whether a conversation's packets took their way. Shared by threads.
#[derive(Clone, Debug)]
pub struct Witness(Arc<HashMap<MapData, Cell<WayFlow>, Cell<Address>>>);

impl Witness {
    /// Whether a packet of this conversation was sent as the data path sends.
    pub fn saw(&self, flow: &WayFlow) -> bool {
        self.0.get(&Cell(*flow), 0).is_ok()
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn unusable(name: &'static str) -> impl Fn(MapError) -> WaysError {
    move |source| WaysError::Map { name, source: Box::new(source) }
}
