//! Mapping of statistics pages: whose page a call means.

use hal::lp::{self, LpIndex};
use model::ensure;
use tlfs::{
    CallCode, HvStatus, PartitionId,
    stats::{MapStatsPageOutput, StatsArea, StatsObjectType, StatsPageInput},
};

use super::Outcome;
use crate::{
    partition::{self, VpRef},
    root::{self, RootCpu, root},
    stats::{self, Object},
};

/// `HvCallMapStatsPage`: gives the root a page of statistics. Without memory for it the root deposits a page and asks
/// again, so it gets back a page of its own, as it expects (`Linux
/// drivers/hv/mshv_root_hv_call.c:hv_call_map_stats_page`).
pub fn map(_: &mut RootCpu, input: StatsPageInput) -> Outcome<MapStatsPageOutput> {
    let map_location = match target(input)? {
        Target::Object(object) => stats::map(object)?,
        Target::ChildVp(vp) => stats::map_vp(&vp)?,
    };
    Ok(MapStatsPageOutput { map_location })
}

/// `HvCallUnmapStatsPage`: takes a page of statistics back, into the root's pool.
pub fn unmap(_: &mut RootCpu, input: StatsPageInput) -> Outcome {
    match target(input)? {
        Target::Object(object) => stats::unmap(object),
        Target::ChildVp(vp) => stats::unmap_vp(&vp),
    }
}

enum Target {
    Object(Object),
    ChildVp(VpRef),
}

fn target(StatsPageInput { object_type, identity, .. }: StatsPageInput) -> Outcome<Target> {
    // To Linux this status says that there is no such area.
    ensure(identity.area == StatsArea::SELF, HvStatus::INVALID_PARAMETER)?;
    let id = identity.partition_id();
    let of_root = matches!(id, PartitionId::SELF | root::ID);
    let child = || partition::find_for(id, CallCode::MAP_STATS_PAGE);
    Ok(Target::Object(match object_type {
        StatsObjectType::HYPERVISOR => Object::Hypervisor,
        StatsObjectType::LOGICAL_PROCESSOR => {
            let lp = LpIndex(identity.lp_index().0);
            lp::apic_id(lp).map(|_| Object::Lp(lp)).ok_or(HvStatus::INVALID_LP_INDEX)?
        }
        StatsObjectType::PARTITION if of_root => Object::Partition(root::ID),
        StatsObjectType::PARTITION => Object::Partition(child()?.id),
        StatsObjectType::VP if of_root => {
            let vp = root().vps.get(identity.vp_index.0 as usize);
            vp.map(|_| Object::RootVp(identity.vp_index)).ok_or(HvStatus::INVALID_VP_INDEX)?
        }
        StatsObjectType::VP => return Ok(Target::ChildVp(child()?.vp(identity.vp_index)?)),
        _ => return Err(HvStatus::INVALID_PARAMETER),
    }))
}
