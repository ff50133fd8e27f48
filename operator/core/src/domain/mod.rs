//! The words of the trade as types: slim records of what was observed, names, moments, conditions.

pub mod approval;
pub mod conditions;
pub mod cron;
pub mod data;
pub mod errand;
pub mod image;
pub mod inputs;
pub mod member;
pub mod names;
pub mod node;
pub mod quantity;
pub mod queue;
pub mod ranges;
pub mod records;
pub mod settings;
pub mod source;
pub mod text;
pub mod time;

pub use approval::ApprovalRecord;
pub use data::{Equipment, Producer, StoreAccess, Stores};
pub use errand::{Errand, Errands};
pub use image::Image;
pub use member::Member;
pub use queue::{Claim, Holding, Placement, QueueConfig};
pub use records::{
    ContainerState, Disruption, ExperimentRecord, JobRecord, JobState, Meta, Owner, PipelineRecord, PodPhase,
    PodRecord, Record, RunRecord, ScheduleRecord, Terminated,
};
