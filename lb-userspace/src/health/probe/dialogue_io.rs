//! Carries out a scripted dialogue.

use super::{
    Progress,
    dialogue::{Dialogue, Output},
    kit_io::{Alpn, Kit},
    stream_io::Talk,
};
use crate::{
    config::model::Step,
    health::{
        outcome::{Failure, Layer},
        target::Target,
    },
};

/// Connects, and goes through all steps.
pub(super) async fn run(target: &Target, steps: &[Step], kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    let mut dialogue = Dialogue::new(steps, |text| kit.pattern(text))?;
    let mut talk = Talk::open(target, kit, Alpn::None, progress).await?;
    loop {
        match dialogue.poll_output()? {
            Output::Send(bytes) => {
                progress.at(Layer::L7, "what is to be sent is not taken");
                talk.send(bytes).await?;
            }
            Output::Await => {
                progress.at(Layer::L7, "what is expected does not come");
                if talk.receive().await? == 0 {
                    return Err(dialogue.handle_end());
                }
                dialogue.handle_received(&talk.received);
                talk.received.clear();
            }
            Output::Done => return Ok(()),
        }
    }
}
