//! How the clients of an API are spoken to.

use super::problem::Problem;

/// How answers look to the clients of an API.
#[derive(Debug)]
pub struct Voice {
    /// Header fields that each answer has, each with its line end.
    pub headers: &'static str,
    /// The status of a refusal. Clients of some APIs drop what is refused with the wrong one.
    pub status: fn(&Problem) -> u16,
    /// The longest `Retry-After`, in seconds. Clients that give up sooner than that drop what they have at once.
    pub longest_wait: u8,
    /// True for clients that look at no status and drop what is refused, but keep what has no answer: for them the connection ends
    /// instead of a 429 or 503.
    pub hangs_up: bool,
    /// A refusal, after so many records were received.
    pub refuse: fn(&Problem, u64) -> Refusal,
}

/// There is one of each, known by what it does.
impl PartialEq for Voice {
    fn eq(&self, other: &Voice) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Voice {}

/// What stands in a refusal.
#[derive(Debug)]
pub struct Refusal {
    /// `Content-Type`
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// For clients that wait as long as they are told.
pub const ANY_WAIT: u8 = u8::MAX;

/// For those who send lines.
pub static LINES: Voice = Voice {
    headers: "",
    status: |problem| problem.status,
    longest_wait: ANY_WAIT,
    hangs_up: false,
    refuse: |problem, lines| {
        let Problem { code, message, .. } = problem;
        let body = format!("{{\"code\":\"{code}\",\"message\":\"{message}\",\"lines_received\":{lines}}}\n");
        Refusal { kind: "application/json", body: body.into() }
    },
};

/// For clients that show the text of a refusal.
pub static TEXT: Voice = Voice {
    headers: "",
    status: never_408,
    longest_wait: ANY_WAIT,
    hangs_up: false,
    refuse: |problem, _| Refusal {
        kind: "text/plain; charset=utf-8",
        body: format!("{}\n", problem.message).into_bytes(),
    },
};

/// The status of a refusal for clients that drop what gets 408, although it may be sent again.
#[must_use]
pub fn never_408(problem: &Problem) -> u16 {
    if problem.status == 408 { 503 } else { problem.status }
}
