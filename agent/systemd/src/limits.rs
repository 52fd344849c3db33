//! Docker's limits as unit properties: pure conversions, no bus.
//!
//! The values are the ones that systemd will report: the CPU quota is rounded here as the manager
//! rounds it, so that what inspect tells and what the kernel does stay the same after a reload.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

/// No limit, in systemd's words.
pub const INFINITY: u64 = u64::MAX;

/// The manager keeps quotas in whole percent: 1 % is 10 ms of each second.
const QUOTA_STEP_USEC: u128 = 10_000;

/// The period of a quota that names none (Docker's and the kernel's default).
const DEFAULT_PERIOD_USEC: u64 = 100_000;

/// The highest CPU or memory node that a set may name, as in Docker. It bounds the bitmap.
const MAX_SET_MEMBER: u32 = 8191;

/// The limits of one scope. `None` and an empty set mean "not asked": the property is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// Bytes that reclaim spares first.
    pub memory_low: Option<u64>,
    /// Bytes of swap, on top of the memory.
    pub memory_swap_max: Option<u64>,
    /// 1…10000, 100 by default.
    pub cpu_weight: Option<u64>,
    /// CPU time per second of wall time, a multiple of 10 ms.
    pub cpu_quota_per_sec_usec: Option<u64>,
    /// The quota's period.
    pub cpu_period_usec: Option<u64>,
    pub tasks_max: Option<u64>,
    /// 1…10000, 100 by default.
    pub io_weight: Option<u64>,
    /// CPUs, one bit each, lowest first.
    pub allowed_cpus: Vec<u8>,
    /// Memory nodes, one bit each, lowest first.
    pub allowed_mems: Vec<u8>,
}

/// What a client asked for, in Docker's words; zero, empty and `None` mean "not asked".
#[derive(Debug, Clone, Copy, Default)]
pub struct DockerLimits<'a> {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together; −1 = unlimited swap; 0 = twice the memory.
    pub memory_swap: i64,
    /// Bytes.
    pub memory_reservation: i64,
    /// 2…262144.
    pub cpu_shares: i64,
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period; −1 = unlimited.
    pub cpu_quota: i64,
    /// `0-3,5`
    pub cpuset_cpus: &'a str,
    pub cpuset_mems: &'a str,
    /// 0 or less = unlimited.
    pub pids_limit: Option<i64>,
    /// 10…1000.
    pub blkio_weight: u16,
}

/// A limit that cannot be turned into a property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("memory and swap together ({total}) must not be less than memory ({memory})")]
    SwapBelowMemory { total: i64, memory: i64 },
    #[error("a limit of memory and swap together needs a memory limit")]
    SwapWithoutMemory,
    #[error("nano cpus and a cpu quota or period cannot both be set")]
    TwoQuotas,
    #[error("invalid cpu set {0:?}")]
    Set(String),
    #[error("blkio weight {0} is not between 10 and 1000")]
    BlkioWeight(u16),
    #[error("{what} must not be negative: {value}")]
    Negative { what: &'static str, value: i64 },
}

impl Limits {
    /// Turns Docker's words into properties, as engines do on the unified hierarchy.
    pub fn from_docker(asked: &DockerLimits<'_>) -> Result<Limits, LimitError> {
        Ok(Limits {
            memory_max: positive("memory", asked.memory)?,
            memory_low: positive("memory reservation", asked.memory_reservation)?,
            memory_swap_max: swap(asked.memory, asked.memory_swap)?,
            cpu_weight: positive("cpu shares", asked.cpu_shares)?.map(weight_of_shares),
            cpu_quota_per_sec_usec: quota(asked)?,
            cpu_period_usec: positive("cpu period", asked.cpu_period)?,
            tasks_max: asked.pids_limit.map(|n| match u64::try_from(n) {
                Ok(n) if n > 0 => n,
                _ => INFINITY,
            }),
            io_weight: io_weight(asked.blkio_weight)?,
            allowed_cpus: set_to_bitmap(asked.cpuset_cpus)?,
            allowed_mems: set_to_bitmap(asked.cpuset_mems)?,
        })
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The properties to send, only those that were asked.
    pub fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        let numbers = [
            ("MemoryMax", self.memory_max),
            ("MemoryLow", self.memory_low),
            ("MemorySwapMax", self.memory_swap_max),
            ("CPUWeight", self.cpu_weight),
            ("CPUQuotaPerSecUSec", self.cpu_quota_per_sec_usec),
            ("CPUQuotaPeriodUSec", self.cpu_period_usec),
            ("TasksMax", self.tasks_max),
            ("IOWeight", self.io_weight),
        ];
        let sets = [
            ("AllowedCPUs", &self.allowed_cpus),
            ("AllowedMemoryNodes", &self.allowed_mems),
        ];
        numbers
            .into_iter()
            .filter_map(|(name, value)| Some((name, Variant::U64(value?))))
            .chain(
                sets.into_iter()
                    .filter(|(_, set)| !set.is_empty())
                    .map(|(name, set)| (name, Variant::from(set.clone()))),
            )
            .collect()
    }

    /// Reads the limits that a unit has now (an administrator may have changed them).
    pub fn from_properties(properties: &HashMap<String, OwnedVariant>) -> Limits {
        let number = |name: &str| match properties.get(name).map(|value| &**value) {
            Some(Variant::U64(value)) if *value != INFINITY => Some(*value),
            _ => None,
        };
        // The manager pads a set with zeros to whole words.
        let set = |name: &str| {
            let value = properties.get(name).cloned();
            let mut set = value
                .and_then(|value| Vec::<u8>::try_from(value).ok())
                .unwrap_or_default();
            set.truncate(
                set.iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1),
            );
            set
        };
        Limits {
            memory_max: number("MemoryMax"),
            memory_low: number("MemoryLow").filter(|bytes| *bytes > 0),
            memory_swap_max: number("MemorySwapMax"),
            cpu_weight: number("CPUWeight"),
            cpu_quota_per_sec_usec: number("CPUQuotaPerSecUSec"),
            cpu_period_usec: number("CPUQuotaPeriodUSec"),
            tasks_max: number("TasksMax"),
            io_weight: number("IOWeight"),
            allowed_cpus: set("AllowedCPUs"),
            allowed_mems: set("AllowedMemoryNodes"),
        }
    }

    /// The properties that have no effect in a cgroup with only these controllers: the manager
    /// accepts and reports them all the same (seen on systemd 252).
    pub fn without_effect(&self, controllers: &[&str]) -> Vec<&'static str> {
        self.properties()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !controllers.contains(&controller_of(name)))
            .collect()
    }
}

/// The controller that a property needs.
fn controller_of(property: &str) -> &'static str {
    match property {
        "MemoryMax" | "MemoryLow" | "MemorySwapMax" => "memory",
        "CPUWeight" | "CPUQuotaPerSecUSec" | "CPUQuotaPeriodUSec" => "cpu",
        "TasksMax" => "pids",
        "IOWeight" => "io",
        _ => "cpuset",
    }
}

fn positive(what: &'static str, value: i64) -> Result<Option<u64>, LimitError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(LimitError::Negative { what, value }),
    }
}

/// cgroup v2 counts swap alone, Docker counts memory and swap together.
fn swap(memory: i64, total: i64) -> Result<Option<u64>, LimitError> {
    match (memory, total) {
        (_, ..=-1) => Ok(Some(INFINITY)),
        (0, 0) => Ok(None),
        (0, _) => Err(LimitError::SwapWithoutMemory),
        // As much swap as memory: Docker's default.
        (memory, 0) => positive("memory", memory),
        (memory, total) if total < memory => Err(LimitError::SwapBelowMemory { total, memory }),
        // Zero is a limit here: no swap at all.
        (memory, total) => Ok(u64::try_from(total - memory).ok()),
    }
}

/// Shares (2…262144) to a weight (1…10000), linearly, as the v2 runtimes do.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// A weight (1…10000) back to shares: what an administrator set is shown in Docker's words.
pub fn shares_of_weight(weight: u64) -> i64 {
    let shares = 2 + (weight.clamp(1, 10_000) - 1) * 262_142 / 9999;
    i64::try_from(shares).unwrap_or(i64::MAX)
}

/// Time per second, rounded up to what the manager can hold.
fn quota(asked: &DockerLimits<'_>) -> Result<Option<u64>, LimitError> {
    if asked.nano_cpus != 0 {
        if asked.cpu_quota != 0 || asked.cpu_period != 0 {
            return Err(LimitError::TwoQuotas);
        }
        let nanos = positive("nano cpus", asked.nano_cpus)?;
        return Ok(nanos.map(|nanos| round_up(u128::from(nanos).div_ceil(1000))));
    }
    let quota = match u64::try_from(asked.cpu_quota) {
        Ok(0) => return Ok(None),
        Ok(quota) => quota,
        Err(_) => return Ok(Some(INFINITY)),
    };
    let period = positive("cpu period", asked.cpu_period)?.unwrap_or(DEFAULT_PERIOD_USEC);
    Ok(Some(round_up(
        (u128::from(quota) * 1_000_000).div_ceil(u128::from(period)),
    )))
}

fn round_up(usec: u128) -> u64 {
    u64::try_from(usec.div_ceil(QUOTA_STEP_USEC) * QUOTA_STEP_USEC).unwrap_or(INFINITY)
}

/// Docker's 10…1000 to 1…10000.
fn io_weight(weight: u16) -> Result<Option<u64>, LimitError> {
    match weight {
        0 => Ok(None),
        10..=1000 => Ok(Some(1 + (u64::from(weight) - 10) * 9999 / 990)),
        other => Err(LimitError::BlkioWeight(other)),
    }
}

/// A list such as `0-3,5` as systemd's bitmap: bit n of byte n/8, lowest first.
fn set_to_bitmap(list: &str) -> Result<Vec<u8>, LimitError> {
    let bad = || LimitError::Set(list.to_owned());
    let mut bitmap = Vec::new();
    if list.is_empty() {
        return Ok(bitmap);
    }
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (
            member(first).ok_or_else(bad)?,
            member(last).ok_or_else(bad)?,
        );
        if first > last {
            return Err(bad());
        }
        for bit in first..=last {
            let byte = (bit / 8) as usize;
            if bitmap.len() <= byte {
                bitmap.resize(byte + 1, 0);
            }
            bitmap[byte] |= 1 << (bit % 8);
        }
    }
    Ok(bitmap)
}

/// One number of a set: digits only, within bounds.
fn member(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = digits.then(|| text.parse().ok())??;
    (number <= MAX_SET_MEMBER).then_some(number)
}

#[cfg(test)]
mod tests;
