//! Bodies of requests to the admin API: what is understood is the same after it has been written and read again, and can be shown.
#![no_main]

use lb_userspace::{
    admin::api::{Apply, Candidate, Look, Request},
    config::ConfigText,
};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;

/// What a body is turned into.
type Taken = fn(&[u8]) -> Option<Request>;

const KINDS: [Taken; 20] = [
    |body| taken(body, Request::Diff),
    |body| taken(body, Request::Apply),
    |body| taken(body, Request::Rollback),
    |body| taken(body, Request::Drain),
    |body| taken(body, Request::Clear),
    |body| taken(body, Request::Weight),
    |body| taken(body, Request::Add),
    |body| taken(body, Request::Remove),
    |body| taken(body, Request::Switch),
    |body| taken(body, Request::Limit),
    |body| taken(body, Request::Watched),
    |body| taken(body, Request::Forget),
    |body| taken(body, Request::VrrpYield),
    |body| taken(body, |part| Request::Look(Look::Part(part))),
    |body| taken(body, |flows| Request::Look(Look::Flows(flows))),
    |body| taken(body, |packet| Request::Look(Look::Explain(packet))),
    |body| taken(body, |entries| Request::Look(Look::Entries(entries))),
    |body| taken(body, Request::Maint),
    |body| taken(body, Request::Ready),
    |body| taken(body, Request::VrrpReady),
];

fn taken<T: DeserializeOwned>(body: &[u8], request: impl Fn(T) -> Request) -> Option<Request> {
    serde_json::from_slice(body).ok().map(request)
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let take = KINDS[usize::from(*kind) % KINDS.len()];
    let Some(request) = take(body) else { return };
    let written = request.body().expect("these types have a body").expect("and it is not empty");
    assert_eq!(take(written.as_bytes()).as_ref(), Some(&request), "{written}");
    assert!(request.to_string().starts_with(|letter: char| letter.is_ascii_lowercase()));
    if let Request::Diff(Candidate { text: Some(text), fragments, .. }) | Request::Apply(Apply { text: Some(text), fragments, .. }) =
        request
    {
        let text = ConfigText::with_fragments("request", text, fragments);
        assert_eq!(text.parts().count(), text.fragments.len().max(1));
    }
});
