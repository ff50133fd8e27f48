//! The demo's drawing: a tree that is redrawn in place on a terminal, and lines of what changed everywhere else.
//!
//! In: headings, lines, and rows that change. Out: standard output.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const SPINNER: [char; 8] = ['⣷', '⣯', '⣟', '⡿', '⢿', '⣻', '⣽', '⣾'];

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Less important.
    Dim,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It is under way.
    Live,
}

/// One line of the tree.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is before the mark: the branch of the tree.
    pub branch: &'static str,
    /// The name, padded by whoever knows the longest one.
    pub name: String,
    /// Where it stands, in one word.
    pub phase: String,
    /// For how long it has run.
    pub time: Option<Duration>,
    /// Metrics, a reason, a place.
    pub detail: String,
    /// How the mark looks; decides the mark too.
    pub look: Look,
}

/// Draws on standard output.
pub struct Painter {
    live: bool,
    colour: bool,
    begun: Instant,
    drawn: usize,
    shown: BTreeMap<String, String>,
}

impl Painter {
    /// As fits standard output.
    pub fn new() -> Self {
        let live = std::io::stdout().is_terminal();
        let colour = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { live, colour, begun: Instant::now(), drawn: 0, shown: BTreeMap::new() }
    }

    /// A heading with its number.
    pub fn heading(&mut self, number: u8, text: &str) {
        self.line(Look::Plain, "");
        self.line(Look::Bold, &format!("{number}  {text}"));
    }

    /// A command as a person would type it.
    pub fn command(&mut self, text: &str) {
        self.line(Look::Dim, &format!("   $ {text}"));
    }

    /// A line that stays.
    pub fn line(&mut self, look: Look, text: &str) {
        self.settle();
        let _ = writeln!(std::io::stdout(), "{}", self.styled(look, text));
    }

    /// Draws the rows over those that were drawn before, or writes a line for each that has changed.
    pub fn draw(&mut self, rows: &[Row]) {
        if !self.live {
            return rows.iter().for_each(|row| self.report(row));
        }
        // Lines that are too long are cut by the terminal, not wrapped: a wrapped line would not be drawn over.
        let mut text = String::from("\x1b[?7l");
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        for row in rows {
            text.push_str(&self.row(row));
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        self.drawn = rows.len();
    }

    /// What is drawn stays from now on.
    pub fn settle(&mut self) {
        self.drawn = 0;
    }

    /// The time between two drawings.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(if self.live { 80 } else { 25 })
    }

    fn row(&self, row: &Row) -> String {
        let frame = self.begun.elapsed().as_millis() / 80;
        let mark = match row.look {
            Look::Good => '✓',
            Look::Bad => '✗',
            Look::Live => SPINNER[usize::try_from(frame).unwrap_or(0) % SPINNER.len()],
            _ => '·',
        };
        let time = row.time.map_or(String::new(), |time| format!("{:.1} s", time.as_secs_f64()));
        let head = format!("{mark} {}  {:<10}", row.name, row.phase);
        let detail = self.styled(if row.look == Look::Bad { Look::Bad } else { Look::Plain }, &row.detail);
        format!("   {}{} {time:>7}  {detail}", row.branch, self.styled(row.look, &head))
    }

    fn report(&mut self, row: &Row) {
        let now = format!("{} {}", row.phase, row.detail);
        // Nothing to tell, or nothing new.
        if row.look == Look::Dim
            || row.look == Look::Live && row.detail.is_empty()
            || self.shown.get(&row.name) == Some(&now)
        {
            return;
        }
        let at = self.begun.elapsed().as_secs_f64();
        let _ =
            writeln!(std::io::stdout(), "   {at:>6.1} s  {}{}  {:<10} {}", row.branch, row.name, row.phase, row.detail);
        self.shown.insert(row.name.clone(), now);
    }

    fn styled(&self, look: Look, text: &str) -> String {
        let code = match look {
            Look::Plain => return text.to_owned(),
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Bad => "31",
            Look::Live => "36",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
