//! CPU, memory and start time of this process, read from /proc when somebody asks.
//!
//! Comes in: the text of /proc/self/stat, /proc/self/status and /proc/stat. Goes out: three metrics by the names that
//! every dashboard knows. Where there is no /proc, there are no such metrics.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Clock ticks a second in /proc; the kernel's ABI fixes USER_HZ at 100 on every platform that Rust runs on.
const TICKS: f64 = 100.0;

/// The collector to register.
pub struct Process {
    cpu: Counter,
    memory: Gauge,
    start: Gauge,
}

/// What /proc says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
    start_seconds: f64,
}

impl Process {
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "CPU time, user and system, in seconds.")?,
            memory: Gauge::new("process_resident_memory_bytes", "Resident memory in bytes.")?,
            start: Gauge::new("process_start_time_seconds", "Start of the process, in seconds since 1970.")?,
        })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        [self.cpu.desc(), self.memory.desc(), self.start.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = |path| std::fs::read_to_string(path).ok();
        let texts = (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/stat"));
        let (Some(stat), Some(status), Some(system)) = texts else { return Vec::new() };
        let Some(usage) = usage(&stat, &status, &system) else { return Vec::new() };
        self.cpu.reset();
        self.cpu.inc_by(usage.cpu_seconds);
        self.memory.set(usage.resident_bytes);
        self.start.set(usage.start_seconds);
        [self.cpu.collect(), self.memory.collect(), self.start.collect()].concat()
    }
}

/// Fields by proc_pid_stat(5): utime 14, stime 15, starttime 22. The second field may hold spaces and brackets, so the
/// count starts after the last bracket.
fn usage(stat: &str, status: &str, system: &str) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let resident: f64 = value(status, "VmRSS:")?.parse().ok()?;
    let boot: f64 = value(system, "btime")?.parse().ok()?;
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        resident_bytes: resident * 1024.0,
        start_seconds: boot + field(22)? / TICKS,
    })
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_an_odd_name() {
        let stat =
            "42 (a) (b c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        let status = "Name:\ta) (b c\nVmSize:\t   9000 kB\nVmRSS:\t    2048 kB\n";
        let expected = Usage { cpu_seconds: 3.0, resident_bytes: 2_097_152.0, start_seconds: 1_123.45 };
        assert_eq!(usage(stat, status, "cpu  1 2 3\nbtime 1000\n"), Some(expected));
        assert_eq!(usage("garbage", status, "btime 1000"), None);
    }
}
