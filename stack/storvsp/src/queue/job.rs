//! SCSI requests, from the packet to the answer.

use std::{sync::Arc, task::Poll};

use vmbus::{
    memory::Memory,
    ranges::{Ranges, Segment},
};
use zerocopy::IntoBytes;

use crate::{
    backend::{IoError, Operation, Token},
    controller::{Controller, Disk, srb},
    protocol::{Packet, Srb, data_in, operation, srb_status, status},
    scsi::{CDB_BYTES, Cdb, MAX_TRANSFER_BYTES, Response, Sense, Target, absent_unit, report_luns},
};

/// The most requests of one channel that are under way. Linux's rings of 128 KiB hold fewer.
pub const MAX_JOBS: usize = 1024;

/// SAM-5 table "status codes".
const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;

/// A request that ended, and what to say.
pub(super) struct Ending {
    /// `None` if the guest does not want to know.
    pub(super) transaction: Option<u64>,
    pub(super) packet: Packet,
}

/// A request whose operations are being done.
struct Job {
    transaction: Option<u64>,
    packet: Packet,
    disk: Arc<Disk>,
    operations: Vec<Operation>,
    /// How many of them are done.
    done: usize,
    transfer: u32,
    segments: Vec<Segment>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    job: Option<Job>,
}

/// All requests of a queue that are under way.
#[derive(Default)]
pub(super) struct Jobs {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// How a request ended.
enum Outcome {
    /// Well, and this many bytes were moved.
    Moved(u32),
    Check(Sense),
    /// The port, not the device, has something to say.
    Port(u8),
}

/// What a request needs, after it has been looked at.
enum Start {
    Ended(Outcome),
    Work { disk: Arc<Disk>, operations: Vec<Operation>, transfer: u32, segments: Vec<Segment> },
}

impl Jobs {
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= MAX_JOBS
    }

    /// Starts a request; how it ended, if it did at once.
    pub(super) fn execute(
        &mut self,
        controller: &Controller,
        memory: &dyn Memory,
        transaction: Option<u64>,
        packet: Packet,
        ranges: &Ranges,
    ) -> Option<Ending> {
        if !controller.is_ready() {
            let packet = Packet {
                operation: operation::COMPLETE_IO,
                status: status::INVALID_DEVICE_STATE,
                ..finished(packet, Outcome::Port(srb_status::INVALID_REQUEST))
            };
            return Some(Ending { transaction, packet });
        }
        match start(controller, memory, &srb(&packet), ranges) {
            Start::Ended(outcome) => Some(Ending { transaction, packet: finished(packet, outcome) }),
            Start::Work { disk, operations, transfer, segments } => {
                let job = Job { transaction, packet, disk, operations, done: 0, transfer, segments };
                let token = self.admit(job);
                self.run(memory, token)
            }
        }
    }

    /// Goes on with a request after the storage has done something for it.
    pub(super) fn resume(
        &mut self,
        memory: &dyn Memory,
        token: Token,
        result: Result<(), IoError>,
    ) -> Option<Ending> {
        self.step(token, result).or_else(|| self.run(memory, token))
    }

    fn admit(&mut self, job: Job) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // At most `MAX_JOBS`.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut self.slots[slot as usize];
        place.job = Some(job);
        Token { slot, generation: place.generation }
    }

    fn job(&mut self, token: Token) -> Option<&mut Job> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        slot.job.as_mut().filter(|_| slot.generation == token.generation)
    }

    /// Does operations until one is not done at once.
    fn run(&mut self, memory: &dyn Memory, token: Token) -> Option<Ending> {
        loop {
            let job = self.job(token)?;
            let Some(operation) = job.operations.get(job.done) else {
                let transfer = job.transfer;
                return self.finish(token, Outcome::Moved(transfer));
            };
            let moves = matches!(operation, Operation::Read { .. } | Operation::Write { .. });
            let segments = if moves { &job.segments[..] } else { &[] };
            match job.disk.backend.submit(token, operation, memory, segments) {
                Poll::Pending => return None,
                Poll::Ready(result) => {
                    if let Some(ending) = self.step(token, result) {
                        return Some(ending);
                    }
                }
            }
        }
    }

    /// Takes the result of the operation that is under way; the request's end if it failed.
    fn step(&mut self, token: Token, result: Result<(), IoError>) -> Option<Ending> {
        let job = self.job(token)?;
        let operation = job.operations.get(job.done)?;
        let outcome = match result {
            Ok(()) => {
                job.done += 1;
                return None;
            }
            Err(IoError::Memory(_)) => Outcome::Port(srb_status::INVALID_REQUEST),
            Err(error) => Outcome::Check(Target::failed(operation, error)),
        };
        self.finish(token, outcome)
    }

    fn finish(&mut self, token: Token, outcome: Outcome) -> Option<Ending> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        let job = slot.job.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.slot);
        Some(Ending { transaction: job.transaction, packet: finished(job.packet, outcome) })
    }
}

/// Looks at a request and does what needs no storage.
fn start(controller: &Controller, memory: &dyn Memory, srb: &Srb, ranges: &Ranges) -> Start {
    let refused = |status| Start::Ended(Outcome::Port(status));
    let Some(cdb) = command(srb) else { return refused(srb_status::INVALID_REQUEST) };
    let room = srb.data_bytes;
    if u64::from(room) > ranges.bytes() || room > MAX_TRANSFER_BYTES {
        return refused(srb_status::INVALID_REQUEST);
    }
    let on_target = srb.path == 0 && srb.target == 0;
    let disk = controller.disk(srb.lun).filter(|_| on_target);
    let disk = match disk {
        Some(disk) if !cdb.is_report_luns() => disk,
        _ if cdb.is_report_luns() => {
            let luns = if on_target { controller.luns() } else { Vec::new() };
            return Start::Ended(give(memory, srb, ranges, report_luns(&cdb, luns.into_iter())));
        }
        _ if cdb.is_inquiry() => return Start::Ended(give(memory, srb, ranges, absent_unit(&cdb))),
        _ if on_target => return refused(srb_status::INVALID_LUN),
        // Linux forgets the unit of this number at target 0 of bus 0 when it hears of an invalid one, whatever bus was meant
        // (`storvsc_remove_lun`).
        _ => return refused(srb_status::NO_DEVICE),
    };
    let mut target = disk.target();
    let wanted = target.parameter_bytes(&cdb);
    if wanted > room {
        return refused(srb_status::DATA_OVERRUN);
    }
    let mut parameters = vec![0; wanted as usize];
    if ranges.read_at(memory, 0, &mut parameters).is_err() {
        return refused(srb_status::INVALID_REQUEST);
    }
    let response = target.execute(&cdb, &parameters, room);
    drop(target);
    match response {
        Response::Data(data) => Start::Ended(give(memory, srb, ranges, Ok(data))),
        Response::Check(sense) => Start::Ended(Outcome::Check(sense)),
        Response::Overrun => refused(srb_status::DATA_OVERRUN),
        Response::Work { operations, transfer } => {
            let reads = operations.iter().any(|operation| matches!(operation, Operation::Read { .. }));
            let direction = if reads { data_in::READ } else { data_in::WRITE };
            if transfer > 0 && srb.data_in != direction {
                return refused(srb_status::INVALID_REQUEST);
            }
            let segments = ranges.segments(0, transfer.into());
            if segments.iter().any(|segment| !memory.is_ram(segment.gpa, segment.bytes.into())) {
                return refused(srb_status::INVALID_REQUEST);
            }
            Start::Work { disk, operations, transfer, segments }
        }
    }
}

/// The request's command, or `None` if it has no possible length.
fn command(srb: &Srb) -> Option<Cdb> {
    let length = usize::from(srb.cdb_length);
    let given = srb.cdb_or_sense.get(..length).filter(|_| (1..=CDB_BYTES).contains(&length))?;
    let mut cdb = [0; CDB_BYTES];
    cdb[..length].copy_from_slice(given);
    Some(Cdb(cdb))
}

/// Gives data to the guest, as much as it has room for.
fn give(memory: &dyn Memory, srb: &Srb, ranges: &Ranges, data: Result<Vec<u8>, Sense>) -> Outcome {
    let data = match data {
        Ok(data) => data,
        Err(sense) => return Outcome::Check(sense),
    };
    let data = &data[..data.len().min(srb.data_bytes as usize)];
    if !data.is_empty() && srb.data_in != data_in::READ {
        return Outcome::Port(srb_status::INVALID_REQUEST);
    }
    match ranges.write_at(memory, 0, data) {
        // Data are shorter than a page list.
        Ok(moved) => Outcome::Moved(u32::try_from(moved).unwrap_or(u32::MAX)),
        Err(_) => Outcome::Port(srb_status::INVALID_REQUEST),
    }
}

/// The answer to a request that ended. Nothing counts as moved after an error: Linux looks at the number even
/// then (`storvsc_command_completion`), for INQUIRY and MODE SENSE at nothing else.
fn finished(packet: Packet, outcome: Outcome) -> Packet {
    let mut request = srb(&packet);
    (request.srb_status, request.scsi_status, request.data_bytes) = match outcome {
        Outcome::Moved(bytes) => (srb_status::SUCCESS, GOOD, bytes),
        Outcome::Port(status) => (status, GOOD, 0),
        Outcome::Check(_) => (srb_status::ERROR | srb_status::AUTOSENSE_VALID, CHECK_CONDITION, 0),
    };
    request.sense_length = match outcome {
        Outcome::Check(sense) => {
            let fixed = sense.fixed();
            let length = fixed.len().min(request.sense_length.into());
            request.cdb_or_sense = [0; 20];
            request.cdb_or_sense[..length].copy_from_slice(&fixed[..length]);
            // At most the room that the guest named.
            u8::try_from(length).unwrap_or(0)
        }
        _ => 0,
    };
    let mut answer = Packet { operation: operation::COMPLETE_IO, status: status::SUCCESS, ..packet };
    answer.payload.copy_from_slice(request.as_bytes());
    answer
}
