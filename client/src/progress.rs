//! Progress bars: on a terminal only, gone when they are done, and never with `--quiet`.
//!
//! Without colours and beside the messages, which are written above them.

use crate::human;
use crate::printer::Printer;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::sync::OnceLock;
use std::time::Duration;

/// All bars of the process, so that messages can step around them.
static BARS: OnceLock<MultiProgress> = OnceLock::new();
/// Something moves even while nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// One bar, or nothing.
#[derive(Clone)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// For bytes on their way, of a known total or not.
    pub(crate) fn bytes(printer: Printer, label: &str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "  {prefix} [{bar:30}] {done} of {all}, {rate}/s",
            None => "  {prefix} {spinner} {done}, {rate}/s",
        };
        Self::start(printer, label, total, template)
    }

    /// For something whose end is not known.
    pub(crate) fn waiting(printer: Printer, label: &str) -> Self {
        Self::start(printer, label, None, "  {prefix} {spinner} {elapsed}")
    }

    /// No bar.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    fn start(printer: Printer, label: &str, total: Option<u64>, template: &str) -> Self {
        if !printer.shows_progress() {
            return Self(None);
        }
        let Ok(style) = ProgressStyle::with_template(template) else { return Self(None) };
        let amount = |n: u64| human::bytes(n);
        let style = style
            .progress_chars("=> ")
            .tick_chars("|/-\\ ")
            .with_key("done", move |s: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = w.write_str(&amount(s.pos()));
            })
            .with_key("all", move |s: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = w.write_str(&amount(s.len().unwrap_or_default()));
            })
            .with_key("rate", move |s: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = w.write_str(&amount(s.per_sec() as u64));
            });
        let bars = BARS.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let bar = bars.add(bar.with_style(style).with_prefix(label.to_owned()));
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// So many more.
    pub(crate) fn add(&self, n: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(n);
        }
    }

    /// From the beginning again.
    pub(crate) fn restart(&self) {
        if let Some(bar) = &self.0 {
            bar.set_position(0);
        }
    }

    /// Takes it off the terminal.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Writes beside the bars, if there are any.
pub(crate) fn aside<T>(write: impl FnOnce() -> T) -> T {
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}
