//! What becomes of messages: the client says it of each, while it is polled.

use logweir::log::ship::note::Positions;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Notes what was not delivered: the client does not tell whoever sent it otherwise.
#[derive(Default)]
pub struct Deliveries {
    pub failed: AtomicU64,
    pub why: Mutex<Option<Code>>,
    /// What the client said last about its connections.
    pub said: Mutex<Option<String>>,
    /// Rounds of which not everything is there, in order; the number of the first.
    pub under_way: Mutex<(usize, VecDeque<Round>)>,
}

/// Messages that are on their way and not yet there, of one round without transactions.
#[derive(Default)]
pub struct Round {
    pub left: u64,
    /// Behind its lines. `None`: more of them come.
    pub positions: Option<Positions>,
    /// The positions are on their way too.
    pub is_noted: bool,
}

impl Deliveries {
    /// Looks at a round that is under way, or changes it.
    pub fn round<T>(&self, number: usize, with: impl FnOnce(&mut Round) -> T) -> Option<T> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let place = number.checked_sub(under_way.0)?;
        under_way.1.get_mut(place).map(with)
    }
}

/// The opaque of messages that belong to no round: of transactions, which are counted by their commit.
pub const NO_ROUND: usize = 0;

impl rdkafka::ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the client says");
        // That all brokers are away says less than why one is.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, round: usize) {
        match result {
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                *self.why.lock().unwrap_or_else(PoisonError::into_inner) = error.rdkafka_error_code();
            }
            Ok(_) if round == NO_ROUND => {}
            Ok(_) => drop(self.round(round, |round| round.left -= 1)),
        }
    }
}
