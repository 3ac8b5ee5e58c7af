//! The admin API's document (OpenAPI 3.1): its schemas come from the types that the daemon sends and takes, its paths from one table.

use utoipa::{
    OpenApi as _,
    openapi::{
        Content, HttpMethod, Info, License, OpenApi, PathItem, Ref, RefOr, Required, Response, Responses, Schema,
        path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathsBuilder},
        request_body::RequestBodyBuilder,
        schema::{ArrayBuilder, ObjectBuilder, Type},
    },
};

use super::api::{
    Addition, Applied, Apply, Candidate, DiffView, EntriesQuestion, Explanation, FlowsQuestion, FlowsView, Forget, HistoryView, InForce,
    Limit, LimitView, MapEntries, MapView, PacketQuestion, PartQuestion, Refusal, Removal, Rollback, Selection, ServerDetail, ServerView,
    Source, StatusView, Switch, Switched, TableView, VrrpView, WeightChange, Which,
};
use super::node::Part;
use crate::control::{event::Event, overrides::Overrides};

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    Addition,
    Applied,
    Apply,
    Candidate,
    DiffView,
    EntriesQuestion,
    Event,
    Explanation,
    FlowsQuestion,
    FlowsView,
    Forget,
    HistoryView,
    InForce,
    Limit,
    LimitView,
    MapEntries,
    MapView,
    Overrides,
    PacketQuestion,
    Part,
    PartQuestion,
    Refusal,
    Removal,
    Rollback,
    Selection,
    ServerDetail,
    ServerView,
    Source,
    StatusView,
    Switch,
    Switched,
    TableView,
    VrrpView,
    WeightChange,
    Which
)))]
struct Schemas;

/// What a path answers with.
enum Answer {
    /// One of the schemas.
    One(&'static str),
    /// A list of it.
    Many(&'static str),
    /// A list of events, or a stream of them.
    Events,
    /// Text for Prometheus.
    Metrics,
    /// This document.
    Document,
}

/// A path of the API.
struct Route {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answer: Answer,
    /// Whether it changes something, which readers may not.
    is_change: bool,
}

const fn look(path: &'static str, summary: &'static str, answer: Answer) -> Route {
    Route { method: "GET", path, summary, body: None, answer, is_change: false }
}

const fn change(path: &'static str, summary: &'static str, body: Option<&'static str>, answer: Answer) -> Route {
    Route { method: "POST", path, summary, body, answer, is_change: true }
}

const fn question(path: &'static str, summary: &'static str, body: &'static str, answer: Answer) -> Route {
    Route { method: "POST", path, summary, body: Some(body), answer, is_change: false }
}

const ROUTES: [Route; 32] = [
    look("/v1/servers", "Servers with their standing, checks and overrides.", Answer::Many("ServerView")),
    look("/v1/servers/details", "The same, and all that is known of their checks and of their past.", Answer::Many("ServerDetail")),
    look("/v1/status", "The node as it is: services, servers, counters, what is wrong.", Answer::One("StatusView")),
    question("/v1/status/part", "Servers, pools or listeners with all that is known of them.", "PartQuestion", Answer::One("Part")),
    question("/v1/flows", "Who is connected where.", "FlowsQuestion", Answer::One("FlowsView")),
    question(
        "/v1/explain",
        "Where a packet would go and why, by the decision that the kernel program makes on its tables.",
        "PacketQuestion",
        Answer::One("Explanation"),
    ),
    look("/v1/maps", "The kernel's maps.", Answer::Many("MapView")),
    question("/v1/maps/entries", "Entries of one map.", "EntriesQuestion", Answer::One("MapEntries")),
    look("/v1/overrides", "What the operator says beside the configuration.", Answer::One("Overrides")),
    look("/v1/history", "The last ten configurations that were in force.", Answer::One("HistoryView")),
    look("/v1/events", "What happened.", Answer::Events),
    look("/v1/metrics", "Everything that is counted, for Prometheus.", Answer::Metrics),
    look("/v1/openapi.json", "This document.", Answer::Document),
    question("/v1/diff", "What a configuration would change. It changes nothing.", "Candidate", Answer::One("DiffView")),
    change("/v1/apply", "Has a configuration in force.", Some("Apply"), Answer::One("Applied")),
    change("/v1/confirm", "Confirms the configuration that waits for it.", None, Answer::One("InForce")),
    change("/v1/rollback", "Has an earlier configuration in force.", Some("Rollback"), Answer::One("InForce")),
    change("/v1/drain", "Has servers take no new flows.", Some("Selection"), Answer::Many("ServerView")),
    change("/v1/maint", "Takes servers out of use.", Some("Selection"), Answer::Many("ServerView")),
    change("/v1/ready", "Has servers in use again.", Some("Selection"), Answer::Many("ServerView")),
    change(
        "/v1/clear",
        "Forgets what was said of servers: the configuration decides again.",
        Some("Selection"),
        Answer::Many("ServerView"),
    ),
    change("/v1/weight", "Gives servers another weight.", Some("WeightChange"), Answer::Many("ServerView")),
    change("/v1/servers/add", "Adds a server to a pool.", Some("Addition"), Answer::Many("ServerView")),
    change("/v1/servers/remove", "Takes a server out of its pool.", Some("Removal"), Answer::Many("ServerView")),
    change("/v1/switch", "Has a listener use another pool.", Some("Switch"), Answer::One("Switched")),
    look("/v1/limits", "The connection rates of listeners, and what they refused.", Answer::Many("LimitView")),
    change("/v1/limit", "Gives a listener another connection rate.", Some("Limit"), Answer::One("LimitView")),
    question("/v1/table", "Sources whose connection rate is watched. It changes nothing.", "Source", Answer::One("TableView")),
    change("/v1/table/clear", "Forgets earlier connections of a source, or of all.", Some("Forget"), Answer::One("TableView")),
    look("/v1/vrrp", "Virtual routers as they are.", Answer::One("VrrpView")),
    change("/v1/vrrp/yield", "Has virtual routers hand over.", Some("Which"), Answer::One("VrrpView")),
    change("/v1/vrrp/ready", "Has virtual routers that yielded preempt again.", Some("Which"), Answer::One("VrrpView")),
];

/// The document.
pub fn document() -> OpenApi {
    let mut document = Schemas::openapi();
    document.info = Info::builder()
        .title("Weir admin API")
        .version("1")
        .description(Some(
            "HTTP/1.1 on a Unix socket (`admin.sock` in `node.state_dir`, or `admin.socket`). The kernel tells who connects. Whoever may open the \
             socket may look; root, the daemon's own user and the users in `admin.users` may change something (the operations tagged `admin`). Every refusal is a \
             `Refusal`, but for what is no HTTP: that has the status 400, too large a head 431, without a body. Answers with events have the \
             header `weir-daemon`: if it is another one than before, the daemon is too, and its events count from 1.",
        ))
        .license(Some(License::builder().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()))
        .build();
    document.paths = ROUTES
        .iter()
        .fold(PathsBuilder::new(), |paths, route| {
            let method = if route.method == "GET" { HttpMethod::Get } else { HttpMethod::Post };
            paths.path(route.path, PathItem::new(method, operation(route)))
        })
        .build();
    document
}

/// The document as JSON.
///
/// # Errors
/// Never for these types.
pub fn text() -> serde_json::Result<String> {
    document().to_pretty_json().map(|text| text + "\n")
}

fn operation(route: &Route) -> Operation {
    let id = route.path.trim_start_matches("/v1/").replace(['/', '.'], "_");
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(route.summary))
        .tag(if route.is_change { "admin" } else { "read-only" })
        .responses(responses(route));
    if let Some(body) = route.body {
        let content = Content::new(Some(Ref::from_schema_name(body)));
        let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if matches!(route.answer, Answer::Events) {
        let query = |name: &str, kind: Type, words: &str| {
            let schema = ObjectBuilder::new().schema_type(kind).build();
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
            parameter.description(Some(words)).schema(Some(schema)).build()
        };
        operation = operation.parameter(query("since", Type::Integer, "Those after this number.")).parameter(query(
            "follow",
            Type::Boolean,
            "Whether those that come are told as they happen, a line of JSON each.",
        ));
    }
    operation.build()
}

fn responses(route: &Route) -> Responses {
    let many = |name: &str| ArrayBuilder::new().items(Ref::from_schema_name(name)).build();
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let good = Response::builder().description("Done.");
    let good = match route.answer {
        Answer::One(name) => good.content("application/json", Content::new(Some(Ref::from_schema_name(name)))),
        Answer::Many(name) => good.content("application/json", Content::new(Some(many(name)))),
        Answer::Events => good
            .content("application/json", Content::new(Some(many("Event"))))
            .content("application/x-ndjson", Content::new(Some(RefOr::<Schema>::from(Ref::from_schema_name("Event"))))),
        Answer::Metrics => good.content("text/plain; version=0.0.4", Content::new(Some(text()))),
        Answer::Document => good.content("application/json", Content::new(Some(ObjectBuilder::new().build()))),
    };
    let refusal = |words: &str| {
        let content = Content::new(Some(Ref::from_schema_name("Refusal")));
        Response::builder().description(words).content("application/json", content).build()
    };
    let mut responses = Responses::new();
    responses.responses.insert("200".into(), good.build().into());
    let mut add = |status: &str, words: &str| responses.responses.insert(status.into(), refusal(words).into());
    if !matches!(route.answer, Answer::Document) {
        add("409", "Refused, with what to do about it; what was in force stays.");
        add("503", "The daemon is ending, or has as many connections, streams or configurations of this caller as it takes.");
    }
    if route.body.is_some() {
        add("400", "The body is broken, or not understood.");
        add("408", "The body did not come in time.");
        add("413", "The body is too large.");
    }
    if matches!(route.answer, Answer::Events) {
        add("400", "The query is not understood.");
    }
    if route.is_change {
        add("403", "The caller may look, but change nothing.");
    }
    responses
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::admin::api::{Look, Request, Since};

    fn written() -> Value {
        serde_json::from_str(&text().unwrap()).unwrap()
    }

    fn requests() -> Vec<Request> {
        let selection = || Selection { servers: "web/a".into(), force: false };
        let added = serde_json::from_str("{\"address\": \"192.0.2.1\"}").unwrap();
        let server = || "web/a".parse().unwrap();
        let packet = serde_json::from_str(r#"{"source": "192.0.2.1:1", "destination": "192.0.2.2:2"}"#).unwrap();
        vec![
            Request::Servers,
            Request::Details,
            Request::Metrics,
            Request::Look(Look::Status),
            Request::Look(Look::Part(PartQuestion { target: "web".into() })),
            Request::Look(Look::Flows(FlowsQuestion { servers: None, client: None, limit: 1 })),
            Request::Look(Look::Explain(packet)),
            Request::Look(Look::Maps),
            Request::Look(Look::Entries(EntriesQuestion { map: "VIPS".into(), limit: 1, raw: false })),
            Request::Overrides,
            Request::History,
            Request::Events(Since::default()),
            Request::Diff(Candidate::default()),
            Request::Apply(Apply::default()),
            Request::Confirm,
            Request::Rollback(Rollback::default()),
            Request::Drain(selection()),
            Request::Maint(selection()),
            Request::Ready(selection()),
            Request::Weight(WeightChange { servers: "web/a".into(), weight: None, force: false, save: false }),
            Request::Add(Addition { server: server(), added, save: false }),
            Request::Remove(Removal { server: server(), force: false, save: false }),
            Request::Switch(Switch { listener: "web".into(), pool: Some("web".into()), force: false }),
            Request::Clear(selection()),
            Request::Limits,
            Request::Limit(Limit { listener: "web".into(), conn_rate: None }),
            Request::Watched(Source::default()),
            Request::Forget(Forget::default()),
            Request::Vrrp,
            Request::VrrpYield(Which::default()),
            Request::VrrpReady(Which::default()),
        ]
    }

    #[test]
    fn every_request_is_in_the_document_with_its_body_and_who_may_make_it() {
        let document = written();
        for request in requests() {
            let (method, path) = request.path();
            let operation = &document["paths"][path][method.to_lowercase()];
            assert!(operation.is_object(), "{method} {path} is not in the document");
            assert_eq!(operation["tags"][0] == "admin", request.is_change(), "{path}");
            assert_eq!(operation["responses"]["403"].is_object(), request.is_change(), "{path}");
            let body = request.body().unwrap();
            assert_eq!(operation["requestBody"].is_object(), body.is_some(), "{path}");
        }
        // And nothing else, but the document itself.
        assert_eq!(document["paths"].as_object().unwrap().len(), requests().len() + 1);
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = written();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        assert_eq!(document["openapi"], "3.1.0");
        let fields = document["components"]["schemas"]["ServerView"]["properties"].as_object().unwrap();
        assert!(fields.contains_key("override") && fields.contains_key("takes_new_flows"), "{fields:?}");
    }

    #[test]
    fn the_document_in_conf_is_current() {
        let kept = include_str!("../../../conf/openapi.json");
        assert!(kept == text().unwrap(), "conf/openapi.json is not what `weir api` prints: weir api > conf/openapi.json");
    }
}
