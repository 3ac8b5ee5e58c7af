//! `weir vrrp`: virtual routers as they are, and who holds which address; has them hand over.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use clap::Subcommand;
use clap_complete::ArgValueCompleter;

use super::{
    Exit, Format,
    apply::time,
    complete,
    look_io::{PATIENCE, answered},
    operate::{OperateError, asked_within, json, refuse},
    place_io::Place,
    render::table,
    yield_io,
};
use crate::{
    admin::{
        api::{Request, VrrpView, Which},
        client_io::AskError,
        node::can_serve,
    },
    speaker,
    speaker::order::{ClaimView, RefusedView, RouterView, TrackView},
};

/// A daemon that has not taken an order by then hangs: it does not wait for the hand-over itself, this command does.
const HEEDS_WITHIN: Duration = Duration::from_secs(10);

/// `weir vrrp`.
#[derive(Subcommand, Debug)]
pub enum Vrrp {
    /// Has routers hand over, with their sync groups, and waits until it is known who has taken over. They leave other nodes alone for `yield_hold`,
    /// or until they are ready.
    #[command(after_help = "Ends with 1 where nobody took over: this node goes on then.\n\nExample: weir vrrp yield www")]
    Yield {
        /// The virtual router; all, if none is named.
        #[arg(add = ArgValueCompleter::new(complete::routers))]
        router: Option<String>,
    },
    /// Has routers that yielded preempt again.
    #[command(after_help = "Example: weir vrrp ready www")]
    Ready {
        /// The virtual router; all, if none is named.
        #[arg(add = ArgValueCompleter::new(complete::routers))]
        router: Option<String>,
    },
}

/// Performs `weir vrrp`. Ends as [`Exit::Refused`] if a router has a fault, nobody speaks, or one that was told to yield goes on.
///
/// # Errors
/// Those of writing.
pub fn vrrp(config: &Path, command: Option<Vrrp>, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let done = match command {
        None => look(config, format, out)?,
        Some(Vrrp::Yield { router }) => hand_over(config, router, format, out)?,
        Some(Vrrp::Ready { router }) => take_back(config, router, format, out)?,
    };
    done.or_else(|error| refuse(err, &error))
}

type Done = io::Result<Result<Exit, OperateError>>;

fn look(config: &Path, format: Format, out: &mut impl Write) -> Done {
    let view = match looked(config, &Request::Vrrp) {
        Ok(view) => view,
        Err(error) => return Ok(Err(error)),
    };
    match format {
        Format::Json => json(&view, out)?,
        Format::Text => show(&view, out)?,
    }
    let is_well = view.trouble.is_none() && view.routers.iter().all(can_serve);
    Ok(Ok(if is_well { Exit::Fine } else { Exit::Refused }))
}

fn hand_over(config: &Path, router: Option<String>, format: Format, out: &mut impl Write) -> Done {
    let told = asked_within(config, &Request::VrrpYield(Which { router: router.clone() }), HEEDS_WITHIN);
    let (now, all) = match told.and_then(|before: VrrpView| yield_io::until_over(config, router.as_deref(), &before)) {
        Ok(over) => over,
        Err(error) => return Ok(Err(error)),
    };
    match format {
        Format::Json => json(&now, out)?,
        Format::Text => all.iter().try_for_each(|(router, yielded)| writeln!(out, "{router}: {yielded}"))?,
    }
    Ok(Ok(if all.iter().all(|(_, yielded)| yielded.is_well()) { Exit::Fine } else { Exit::Refused }))
}

fn take_back(config: &Path, router: Option<String>, format: Format, out: &mut impl Write) -> Done {
    let view: VrrpView = match asked_within(config, &Request::VrrpReady(Which { router }), HEEDS_WITHIN) {
        Ok(view) => view,
        Err(error) => return Ok(Err(error)),
    };
    match format {
        Format::Json => json(&view, out)?,
        Format::Text => writeln!(out, "told; weir vrrp shows what becomes of it")?,
    }
    Ok(Ok(Exit::Fine))
}

/// What the daemon says, or what is known without it where it does not answer.
fn looked(config: &Path, request: &Request) -> Result<VrrpView, OperateError> {
    let place = Place::of(config)?;
    answered(&place, request, PATIENCE).or_else(|unanswered| match &unanswered {
        OperateError::Ask(AskError::NoDaemon { .. } | AskError::Broken(_) | AskError::Silent(_)) => {
            known_without_daemon(&place, &unanswered).ok_or(unanswered)
        }
        OperateError::Ask(AskError::Denied { .. } | AskError::Unknown(_) | AskError::Refused(_))
        | OperateError::Place(_)
        | OperateError::Mute { .. }
        | OperateError::Answer(_) => Err(unanswered),
    })
}

/// What the speaker says, which outlives the daemon, or else what a daemon that hangs wrote last. A daemon whose connection to the speaker this takes
/// connects again.
fn known_without_daemon(place: &Place, unanswered: &OperateError) -> Option<VrrpView> {
    let daemon = place.daemon();
    let trouble = daemon.map_or_else(without_daemon, |pid| unanswering(pid, unanswered));
    if let Some((pid, routers)) = speaker::visit_io::look(&place.state_dir) {
        return Some(VrrpView { speaker_pid: Some(pid), trouble: Some(trouble), routers });
    }
    let report = place.report.as_ref().ok().filter(|_| daemon.is_some())?;
    let age = format!("nobody who speaks vrrp answers either: this is what was written at {}", time(report.read_at_ms));
    Some(VrrpView { speaker_pid: None, trouble: Some(format!("{trouble}; {age}")), routers: report.vrrp.clone() })
}

fn without_daemon() -> String {
    "there is no daemon: pools, files and commands that are tracked are as they were when it ended".into()
}

/// What it means that a daemon that is there does not answer.
fn unanswering(pid: u32, why: &OperateError) -> String {
    let why = why.to_string();
    let why = why.lines().next().unwrap_or_default();
    format!(
        "the daemon, process {pid}, does not answer, so that pools, files and commands that are tracked are as they were when it last told: {why}"
    )
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
        vec![router.router.clone(), router.state.clone(), time(router.since_ms), router.priority.to_string(), active, why(router)]
    };
    table(&["VIRTUAL ROUTER", "STATE", "SINCE", "PRIORITY", "ACTIVE", "WHY"], &routers.iter().map(row).collect::<Vec<_>>(), out)
}

/// Why it is as it is, and what else keeps it so.
fn why(RouterView { router, why, is_on_hold, .. }: &RouterView) -> String {
    if *is_on_hold { format!("{why}; on hold: weir vrrp ready {router}") } else { why.clone() }
}

fn details(router: &RouterView, out: &mut impl Write) -> io::Result<()> {
    let source = router.source.map_or_else(|| "-".to_owned(), |source| source.to_string());
    write!(out, "{}  id {} on {}, version {}, from {source}", router.router, router.router_id, router.interface, router.version)?;
    write!(out, ", every {} ms, priority {}", router.interval_ms, router.priority)?;
    if router.priority != router.base_priority {
        write!(out, " (configured {})", router.base_priority)?;
    }
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
    for TrackView { name, is_up, weight, why } in &router.tracks {
        let effect = weight.map_or_else(|| "a fault if down".to_owned(), |weight| format!("weight {weight}"));
        let why = why.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        writeln!(out, "  {name}: {}, {effect}{why}", if *is_up { "up" } else { "down" })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_that_is_moved_is_told_with_the_configured_one() {
        let told = |priority: u8| {
            let router = RouterView { priority, base_priority: 100, interval_ms: 100, ..RouterView::default() };
            let mut out = Vec::new();
            details(&router, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(told(130).contains(", every 100 ms, priority 130 (configured 100)\n"), "{}", told(130));
        assert!(told(100).contains(", every 100 ms, priority 100\n"), "{}", told(100));
    }

    #[test]
    fn a_router_on_hold_is_told_with_what_ends_it() {
        let told = |is_on_hold| {
            let (router, why) = ("www".to_owned(), "10.77.0.2 took over".to_owned());
            let mut out = Vec::new();
            summary(&[RouterView { router, why, is_on_hold, ..RouterView::default() }], &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(told(true).ends_with("  10.77.0.2 took over; on hold: weir vrrp ready www\n"), "{}", told(true));
        assert!(told(false).ends_with("  10.77.0.2 took over\n"), "{}", told(false));
    }

    #[test]
    fn a_daemon_that_hangs_is_told_with_what_that_means() {
        let silent = OperateError::Ask(AskError::Silent(PATIENCE));
        assert_eq!(
            unanswering(7, &silent),
            "the daemon, process 7, does not answer, so that pools, files and commands that are tracked are as they were when it last told: \
             the daemon has not answered for 5 s: it hangs, or is very busy, and may still do what it was asked for"
        );
    }
}
