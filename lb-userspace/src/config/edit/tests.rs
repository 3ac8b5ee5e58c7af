use super::{super::model::ServerState, *};

const NODE: &str = "[node]\ninterfaces = \"eth0\" # here\n";
const WEB: &str = "[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"web\"\n";

fn server(address: &str, port: Option<u16>, weight: u16, backup: bool) -> Server {
    Server { address: address.parse().unwrap(), port, weight, backup, state: ServerState::Ready }
}

/// What becomes of the pool's section.
fn edited(pool: &str, name: &str, what: &Edit) -> String {
    let head = format!("{NODE}{WEB}# The pool.\n");
    let text = ConfigText::new("weir.toml", format!("{head}{pool}"));
    let edited = edit(&text, "host", "web", name, what).unwrap();
    assert_eq!((&edited.file, &edited.after), (&text.file, &edited.text.text));
    edited.after.strip_prefix(&head).expect("what is before stays").to_owned()
}

#[test]
fn a_server_is_added_in_the_way_that_the_others_are_written() {
    let add = Edit::Add(server("10.0.0.2", Some(81), 1, false));
    let dotted = "[pool.web] # web\nservers.a = \"10.0.0.1\" # first\n\n# end\n[pool.db]\nservers.x = \"10.0.0.9\"\n";
    let added =
        "[pool.web] # web\nservers.a = \"10.0.0.1\" # first\nservers.b = \"10.0.0.2:81\"\n\n# end\n[pool.db]\nservers.x = \"10.0.0.9\"\n";
    assert_eq!(edited(dotted, "b", &add), added);
    let header = "[pool.web.servers]\na = \"10.0.0.1\"   # first\n# end\n";
    assert_eq!(edited(header, "b", &add), "[pool.web.servers]\na = \"10.0.0.1\"   # first\nb = \"10.0.0.2:81\"\n# end\n");
    let inline = "[pool.web]\nservers = { a = \"10.0.0.1\" }\n";
    assert_eq!(edited(inline, "b", &add), "[pool.web]\nservers = { a = \"10.0.0.1\", b = \"10.0.0.2:81\" }\n");
    let heavy = Edit::Add(server("2001:db8::2", None, 5, true));
    let tunnelled = "[pool.web]\nforward = \"ipip\"\nservers.a = \"10.0.0.1\"\n";
    let added = format!("{tunnelled}servers.b = {{ address = \"2001:db8::2\", weight = 5, backup = true }}\n");
    assert_eq!(edited(tunnelled, "b", &heavy), added);
    let light = "[pool.web]\nserver.weight = 9\nservers.a = \"10.0.0.1\"\n";
    let added = format!("{light}servers.b = {{ address = \"10.0.0.2:81\", weight = 1, backup = false }}\n");
    assert_eq!(edited(light, "b", &add), added);
}

#[test]
fn a_server_is_removed_and_nothing_else() {
    let pool = "[pool.web]\n# one\nservers.a = \"10.0.0.1\"\n# two\nservers.b = { address = \"10.0.0.2\" }\n# three\nservers.c = \"10.0.0.3\" # c\n";
    let left = "[pool.web]\n# one\nservers.a = \"10.0.0.1\"\n# three\nservers.c = \"10.0.0.3\" # c\n";
    assert_eq!(edited(pool, "b", &Edit::Remove), left);
}

#[test]
fn a_weight_is_written_where_the_server_is() {
    let pool = "[pool.web]\nservers.a = \"10.0.0.1\" # one\nservers.b = { address = \"10.0.0.2\", weight = 2 } # two\n[pool.web.servers.c]\nweight = 3 # three\naddress = \"10.0.0.3\"\n";
    let other = pool.replace("\"10.0.0.1\" # one", "{ address = \"10.0.0.1\", weight = 7 } # one");
    assert_eq!(edited(pool, "a", &Edit::Weight(7)), other);
    let short = "[pool.web]\nservers = { a = { address = \"10.0.0.1\" }, b = \"10.0.0.2\" }\n";
    let other = short.replace("0.1\" }", "0.1\", weight = 7 }");
    assert_eq!(edited(short, "a", &Edit::Weight(7)), other);
    assert_eq!(edited(pool, "b", &Edit::Weight(7)), pool.replace("weight = 2", "weight = 7"));
    assert_eq!(edited(pool, "c", &Edit::Weight(7)), pool.replace("weight = 3", "weight = 7"));
}

#[test]
fn of_a_directory_the_fragment_that_has_the_pool_changes() {
    let fragments = [("1", NODE), ("2", WEB), ("3", "[pool.web]\nserver.weight = 2"), ("4", "[pool.web.servers]\na = \"10.0.0.1\"\n")];
    let text = ConfigText::joined("d", fragments.map(|(name, text)| (format!("d/{name}"), text.to_owned())));
    let what = Edit::Add(server("10.0.0.2", None, 2, false));
    let edited = edit(&text, "host", "web", "b", &what).unwrap();
    assert_eq!((edited.file.as_str(), edited.before.as_str()), ("d/4", fragments[3].1));
    assert_eq!(edited.after, "[pool.web.servers]\na = \"10.0.0.1\"\nb = \"10.0.0.2\"\n");
    let whole =
        ConfigText::joined("d", fragments.map(|(name, text)| (format!("d/{name}"), text.replace("0.1\"\n", "0.1\"\nb = \"10.0.0.2\"\n"))));
    assert_eq!(edited.text, whole);
}

#[test]
fn what_would_be_no_configuration_or_another_is_refused() {
    let refusal = |pool: &str, name: &str, what: &Edit| {
        edit(&ConfigText::new("weir.toml", format!("{NODE}{WEB}{pool}")), "host", "web", name, what).unwrap_err().to_string()
    };
    let pool = "[pool.web]\nserver.port = 81\nservers.a = \"10.0.0.1\"\n";
    assert!(refusal(pool, "b", &Edit::Add(server("10.0.0.2", None, 1, false))).contains("its pool gives it a port"));
    assert!(refusal(pool, "a", &Edit::Remove).contains("a pool needs a server"));
    assert!(refusal(pool, "b", &Edit::Remove).starts_with("web/b is not in the configuration's file"));
    assert!(refusal("[pool.db]\nservers.a = \"10.0.0.1\"\n", "b", &Edit::Remove).starts_with("web/b is not in"));
    assert!(refusal(pool, "b", &Edit::Add(server("192.0.2.1", Some(1), 1, false))).contains("192.0.2.1 is a VIP"));
}
