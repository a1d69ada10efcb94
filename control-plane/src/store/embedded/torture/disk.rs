//! A disk in memory, which notes what is done to it and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

const PAGE: u64 = 4096;

/// What is done to a disk.
#[derive(Debug, Clone)]
pub enum Op {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
    Sync,
}

/// Which operation fails.
#[derive(Debug, Clone, Copy)]
pub struct Failing {
    pub at: usize,
    pub kind: io::ErrorKind,
    pub for_good: bool,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    log: Vec<Op>,
    /// Operations that were asked for.
    asked: usize,
    failing: Option<Failing>,
    failed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

/// A disk on which these were done.
pub fn image<'a>(ops: impl Iterator<Item = &'a Op>) -> Disk {
    let mut inner = Inner::default();
    for op in ops {
        inner.apply(op);
    }
    Disk(Arc::new(Mutex::new(inner)))
}

impl Disk {
    pub fn failing(failing: Failing) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().failing = Some(failing);
        disk
    }

    pub fn log(&self) -> Vec<Op> {
        self.0.lock().unwrap().log.clone()
    }

    pub fn operations(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    /// Whether nothing has failed.
    pub fn survived(&self) -> bool {
        !self.0.lock().unwrap().failed
    }

    pub fn byte(&self, offset: u64) -> Option<u8> {
        let inner = self.0.lock().unwrap();
        (offset < inner.len).then(|| {
            let page = inner.pages.get(&(offset / PAGE));
            page.map_or(0, |page| page[(offset % PAGE) as usize])
        })
    }

    fn run(&self, op: Op) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let now = inner.asked;
        inner.asked += 1;
        if let Some(failing) = inner.failing
            && (now == failing.at || (failing.for_good && now > failing.at))
        {
            inner.failed = true;
            return Err(failing.kind.into());
        }
        inner.apply(&op);
        inner.log.push(op);
        Ok(())
    }
}

impl Inner {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Sync => {}
            Op::SetLen(len) => {
                self.len = *len;
                self.pages.retain(|page, _| page * PAGE < *len);
                if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                    page[(len % PAGE) as usize..].fill(0);
                }
            }
            Op::Write { offset, data } => {
                // A write that came through although the one that made room did not.
                self.len = self.len.max(offset + data.len() as u64);
                let mut at = *offset;
                let mut rest: &[u8] = data;
                while !rest.is_empty() {
                    let within = (at % PAGE) as usize;
                    let length = rest.len().min(PAGE as usize - within);
                    let new = || vec![0; PAGE as usize].into_boxed_slice();
                    let page = self.pages.entry(at / PAGE).or_insert_with(new);
                    page[within..within + length].copy_from_slice(&rest[..length]);
                    (at, rest) = (at + length as u64, &rest[length..]);
                }
            }
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        if offset + out.len() as u64 > inner.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let length = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at_mut(length);
            match inner.pages.get(&(at / PAGE)) {
                Some(page) => now.copy_from_slice(&page[within..within + length]),
                None => now.fill(0),
            }
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.run(Op::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.run(Op::Write { offset, data: data.into() })
    }
}
