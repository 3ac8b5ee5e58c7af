//! What of a new configuration a running data plane can take, and what has to wait for another start. Pure.

use std::collections::BTreeMap;

use crate::config::model::{Bind, Config, Forward, Listener};

/// Keys that differ and take effect at the next start only, in words.
pub(super) fn restart_only(old: &Config, new: &Config) -> Vec<String> {
    let differing = [
        ("limits", old.limits != new.limits),
        ("node.pin_dir", old.node.pin_dir != new.node.pin_dir),
        ("node.xdp", old.node.xdp != new.node.xdp),
        ("node.slot_seed", old.node.slot_seed != new.node.slot_seed),
    ];
    let differing = differing.into_iter().filter(|(_, differs)| *differs);
    let mut held: Vec<String> = differing
        .map(|(key, _)| format!("{key} differs from what the data plane was made with: `weir stop`, then start, to change it"))
        .collect();
    if old.node.state_dir != new.node.state_dir {
        held.push("node.state_dir differs from the one in use: start the daemon again to change it".into());
    }
    held
}

/// The new configuration, with what only a start can change as it was.
pub(super) fn with_fixed(old: &Config, mut new: Config) -> Config {
    new.limits = old.limits;
    new.node.pin_dir.clone_from(&old.node.pin_dir);
    new.node.state_dir.clone_from(&old.node.state_dir);
    new.node.slot_seed.clone_from(&old.node.slot_seed);
    new.node.xdp = old.node.xdp;
    new
}

/// Services whose connections end when `new` follows `old`, in words: those that turn to NAT or from it, and those that let in other sources.
pub(super) fn cut_off(old: &Config, new: &Config) -> Vec<String> {
    let before: BTreeMap<Bind, (bool, &Listener)> =
        old.binds().map(|(bind, listener, _)| (bind, (is_translated(old, listener), listener))).collect();
    let sourced = new.binds().filter(|(bind, listener, _)| {
        before.get(bind).is_some_and(|(_, before)| (&before.allow, &before.deny) != (&listener.allow, &listener.deny))
    });
    let sourced = sourced.map(|(bind, _, name)| {
        format!("other sources are let in to {bind} (listener `{name}`): packets of those that are refused from now on are dropped, those of live flows too")
    });
    let turned =
        new.binds().filter(|(bind, listener, _)| before.get(bind).is_some_and(|(before, _)| *before != is_translated(new, listener)));
    turned
        .map(|(bind, _, name)| {
            format!("the connections of {bind} (listener `{name}`) end: no other mode can go on with those of nat, nor nat with theirs")
        })
        .chain(sourced)
        .collect()
}

fn is_translated(config: &Config, listener: &Listener) -> bool {
    config.pools.get(&listener.pool).is_some_and(|pool| matches!(pool.forward, Forward::Nat { .. }))
}

#[cfg(test)]
mod tests {
    use super::{cut_off, restart_only, with_fixed};
    use crate::config::{ConfigText, model::Config};

    fn config(rest: &str) -> Config {
        let text =
            format!("{rest}\n[listener.a]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"a\"\n[pool.a]\nservers.s = \"10.0.0.1\"\n");
        crate::config::parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_kept() {
        let old = config("[node]\ninterfaces = \"eth0\"\n");
        let new = config("[node]\ninterfaces = [\"eth0\", \"eth1\"]\nxdp = \"generic\"\nslot_seed = \"x\"\n[limits]\nflows = 2048\n");
        let held: Vec<_> = restart_only(&old, &new).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(held, ["limits", "node.xdp", "node.slot_seed"]);
        let taken = with_fixed(&old, new.clone());
        assert_eq!((taken.limits, &taken.node.slot_seed, taken.node.xdp), (old.limits, &old.node.slot_seed, old.node.xdp));
        assert_eq!(taken.node.interfaces, new.node.interfaces);
        assert_eq!(restart_only(&old, &taken), Vec::<String>::new());
    }
    #[test]
    fn a_turn_to_nat_or_from_it_is_told() {
        let [nat, dsr, ipip] =
            ["nat", "dsr", "ipip"].map(|mode| config(&format!("[node]\ninterfaces = \"eth0\"\n[defaults]\nforward = \"{mode}\"\n")));
        let told = "the connections of 192.0.2.1:80/tcp (listener `a`) end: no other mode can go on with those of nat, nor nat with theirs";
        assert_eq!((cut_off(&nat, &dsr), cut_off(&ipip, &nat)), (vec![told.to_owned()], vec![told.to_owned()]));
        assert_eq!((cut_off(&dsr, &ipip), cut_off(&nat, &nat)), (vec![], vec![]));
    }

    #[test]
    fn sources_that_are_refused_from_now_on_are_told() {
        let [open, closed] =
            ["", "deny = \"10.0.0.0/8\"\n"].map(|deny| config(&format!("[node]\ninterfaces = \"eth0\"\n[defaults]\n{deny}")));
        let told = "other sources are let in to 192.0.2.1:80/tcp (listener `a`): packets of those that are refused from now on are dropped, those of live flows too";
        assert_eq!((cut_off(&open, &closed), cut_off(&closed, &closed)), (vec![told.to_owned()], vec![]));
    }
}
