//! `weir vrrp`: virtual routers as they are, and who holds which address; has them hand over.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Subcommand;

use super::{
    Exit, Format,
    apply::time,
    operate::{OperateError, asked, json, refuse},
    place_io::Place,
    render::table,
};
use crate::{
    admin::{
        api::{Request, VrrpView, Which},
        client_io::AskError,
    },
    speaker,
    speaker::order::{ClaimView, RefusedView, RouterView, TrackView},
};

/// `weir vrrp`.
#[derive(Subcommand, Debug)]
pub enum Vrrp {
    /// Has routers hand over, with their sync groups. They leave other nodes alone for `yield_hold`, or until they are ready.
    #[command(after_help = "Example: weir vrrp yield www")]
    Yield {
        /// The virtual router; all, if none is named.
        router: Option<String>,
    },
    /// Has routers that yielded preempt again.
    #[command(after_help = "Example: weir vrrp ready www")]
    Ready {
        /// The virtual router; all, if none is named.
        router: Option<String>,
    },
}

/// Performs `weir vrrp`. Ends as [`Exit::Refused`] if a router has a fault, or nobody speaks.
///
/// # Errors
/// Those of writing.
pub fn vrrp(config: &Path, command: Option<Vrrp>, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let request = match command {
        None => Request::Vrrp,
        Some(Vrrp::Yield { router }) => Request::VrrpYield(Which { router }),
        Some(Vrrp::Ready { router }) => Request::VrrpReady(Which { router }),
    };
    let is_change = request.is_change();
    let view: VrrpView = match asked(config, &request) {
        Ok(view) => view,
        Err(error) => {
            let is_answer = matches!(error, OperateError::Ask(AskError::Refused(_)));
            match if is_change || is_answer { None } else { spoken(config) } {
                Some(view) => view,
                None => return refuse(err, &error),
            }
        }
    };
    match format {
        Format::Json => json(&view, out)?,
        Format::Text if is_change => writeln!(out, "told; weir vrrp shows what becomes of it")?,
        Format::Text => show(&view, out)?,
    }
    let is_well = view.trouble.is_none() && view.routers.iter().all(|router| router.state != "fault");
    Ok(if is_well || is_change { Exit::Fine } else { Exit::Refused })
}

/// Of the speaker itself, which outlives the daemon.
fn spoken(config: &Path) -> Option<VrrpView> {
    let place = Place::of(config).ok().filter(|place| place.daemon().is_none())?;
    let (pid, routers) = speaker::driver::look(&place.state_dir)?;
    let trouble = Some("there is no daemon: pools, files and commands that are tracked are as they were when it ended".to_owned());
    Some(VrrpView { speaker_pid: Some(pid), trouble, routers })
}

fn show(view: &VrrpView, out: &mut impl Write) -> io::Result<()> {
    if let Some(trouble) = &view.trouble {
        writeln!(out, "! {trouble}")?;
    }
    if view.routers.is_empty() {
        return writeln!(out, "there is no virtual router");
    }
    summary(&view.routers, out)?;
    for router in &view.routers {
        writeln!(out)?;
        details(router, out)?;
    }
    Ok(())
}

/// A line for each router.
pub(super) fn summary(routers: &[RouterView], out: &mut impl Write) -> io::Result<()> {
    let row = |router: &RouterView| {
        let active = router.active.map_or_else(|| "-".to_owned(), |active| active.to_string());
        vec![router.router.clone(), router.state.clone(), time(router.since_ms), router.priority.to_string(), active, router.why.clone()]
    };
    table(&["VIRTUAL ROUTER", "STATE", "SINCE", "PRIORITY", "ACTIVE", "WHY"], &routers.iter().map(row).collect::<Vec<_>>(), out)
}

fn details(router: &RouterView, out: &mut impl Write) -> io::Result<()> {
    let source = router.source.map_or_else(|| "-".to_owned(), |source| source.to_string());
    write!(out, "{}  id {} on {}, version {}, from {source}", router.router, router.router_id, router.interface, router.version)?;
    write!(out, ", every {} ms, priority {} of {}", router.interval_ms, router.priority, router.base_priority)?;
    router.virtual_mac.iter().try_for_each(|mac| write!(out, ", as {mac}"))?;
    writeln!(out, "{}", router.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default())?;
    if router.is_on_hold {
        writeln!(out, "  it yielded: it leaves other nodes alone")?;
    }
    router.faults.iter().try_for_each(|fault| writeln!(out, "  ! {fault}"))?;
    router.strays.iter().try_for_each(|stray| writeln!(out, "  ! {stray}"))?;
    for ClaimView { what, heard_ms_ago, .. } in &router.claims {
        writeln!(out, "  ! {what}; heard {heard_ms_ago} ms ago")?;
    }
    for RefusedView { source, why, heard_ms_ago } in &router.refusing {
        writeln!(out, "  ! adverts of {source} count for nothing: {why}; the last came {heard_ms_ago} ms ago")?;
    }
    writeln!(out, "  adverts {} sent, {} heard; {} times active", router.sent, router.heard, router.became_active)?;
    router.refused.iter().try_for_each(|(why, count)| writeln!(out, "  {count} refused: {why}"))?;
    for address in &router.addresses {
        let holder = match (address.is_held, address.holder) {
            (true, _) => "this node".to_owned(),
            (false, Some(holder)) => holder.to_string(),
            (false, None) => "nobody that is known".to_owned(),
        };
        writeln!(out, "  {}/{} on {}: {holder}", address.address, address.prefix_len, address.device)?;
    }
    for TrackView { name, is_up, weight } in &router.tracks {
        let effect = weight.map_or_else(|| "a fault if down".to_owned(), |weight| format!("weight {weight}"));
        writeln!(out, "  {name}: {}, {effect}", if *is_up { "up" } else { "down" })?;
    }
    for peer in &router.peers {
        let ago = format!("{} ms ago", peer.heard_ms_ago);
        writeln!(
            out,
            "  peer {}: priority {}, every {} ms, {} adverts, the last {ago}",
            peer.address, peer.priority, peer.interval_ms, peer.adverts
        )?;
        peer.conflicts.iter().try_for_each(|conflict| writeln!(out, "    ! {conflict}"))?;
    }
    Ok(())
}
