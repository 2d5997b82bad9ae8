//! A spinner while something takes long; only where a person looks.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Runs `work` under a spinner with this text.
pub fn during<T>(text: impl Into<String>, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let bar = spinner(text);
    let result = work();
    bar.finish_and_clear();
    result
}

/// Runs `work` under a spinner whose text it changes as it goes.
pub fn steps<T>(text: impl Into<String>, work: impl FnOnce(&dyn Fn(String)) -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work(&|_| ());
    }
    let bar = spinner(text);
    let result = work(&|text| bar.set_message(text));
    bar.finish_and_clear();
    result
}

/// A spinner that turns until it is cleared.
pub fn spinner(text: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(text.into());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
