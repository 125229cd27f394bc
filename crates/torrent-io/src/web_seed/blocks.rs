//! Cuts the bytes of a run of units, as they arrive, into blocks.

use std::ops::{ControlFlow, Range};

use torrent::{BLOCK_LEN, Block, Geometry};

use crate::storage::Layout;

/// The blocks of a run of units, in order, and the one that is arriving.
pub(super) struct Blocks<'a> {
    geometry: &'a Geometry,
    layout: &'a Layout,
    units: Range<u32>,
    /// Next block of the first of `units`.
    next: u32,
    current: Option<Block>,
    /// Where the next byte belongs in the piece space.
    at: u64,
    /// The first part of `current`, if it came in parts.
    part: Vec<u8>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(geometry: &'a Geometry, layout: &'a Layout, units: Range<u32>) -> Self {
        let mut blocks = Self {
            geometry,
            layout,
            units: units.start..units.end.min(geometry.unit_count()),
            next: 0,
            current: None,
            at: 0,
            part: Vec::with_capacity(BLOCK_LEN as usize),
        };
        blocks.step();
        blocks.at = blocks.current.map_or(0, |block| layout.start_of(block));
        blocks
    }

    /// The range of the piece space from the first block to the end of the last: (start, length).
    pub(super) fn range(&self) -> (u64, u64) {
        let last = self.units.clone().rev().find_map(|index| {
            let unit = self.geometry.unit(index)?;
            let last = self.geometry.block_count(unit).checked_sub(1)?;
            Some(self.geometry.block(unit, last))
        });
        let end = last.map_or(self.at, |block| self.layout.start_of(block) + u64::from(block.len));
        (self.at, end - self.at)
    }

    /// The next bytes; what lies between blocks is dropped.
    pub(super) fn feed(
        &mut self,
        mut data: &[u8],
        sink: &mut dyn FnMut(Block, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(block) = self.current
            && !data.is_empty()
        {
            let start = self.layout.start_of(block);
            if self.at < start {
                let gap = (start - self.at).min(data.len() as u64);
                data = &data[gap as usize..];
                self.at += gap;
                continue;
            }
            let missing = block.len as usize - self.part.len();
            let (now, later) = data.split_at(missing.min(data.len()));
            data = later;
            self.at += now.len() as u64;
            if now.len() < missing {
                self.part.extend_from_slice(now);
                break;
            }
            if self.part.is_empty() {
                sink(block, now)?;
            } else {
                self.part.extend_from_slice(now);
                sink(block, &self.part)?;
                self.part.clear();
            }
            self.step();
        }
        ControlFlow::Continue(())
    }

    fn step(&mut self) {
        self.current = None;
        while !self.units.is_empty() {
            if let Some(unit) = self.geometry.unit(self.units.start)
                && self.next < self.geometry.block_count(unit)
            {
                self.current = Some(self.geometry.block(unit, self.next));
                self.next += 1;
                return;
            }
            self.units.start += 1;
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::FileSpan;

    /// Two files of v2: pieces of 32 KiB, the first file ends early in its second piece.
    fn shapes() -> (Geometry, Layout) {
        let geometry = Geometry::new(32_768, 3, 16_384, vec![(1, 5_000), (2, 20_000)]).unwrap();
        let span =
            |path: &str, start, len| FileSpan { path: path.into(), start, len, padding: false };
        let files = vec![span("t/a", 0, 37_768), span("t/b", 65_536, 20_000)];
        (geometry, Layout::new(32_768, files).unwrap())
    }

    fn check(units: Range<u32>, range: (u64, u64), expect: &[(u32, u32, u32)]) {
        let (geometry, layout) = shapes();
        for portion in [1, 700, 16_384, 100_000] {
            let mut blocks = Blocks::new(&geometry, &layout, units.clone());
            assert_eq!(blocks.range(), range);
            let data: Vec<u8> = (range.0..range.0 + range.1).map(|at| at as u8).collect();
            let mut found = Vec::new();
            for part in data.chunks(portion) {
                let flow = blocks.feed(part, &mut |block, data| {
                    let start = layout.start_of(block);
                    let expect = (start..start + u64::from(block.len)).map(|at| at as u8);
                    assert!(expect.eq(data.iter().copied()));
                    found.push((block.piece, block.offset, block.len));
                    ControlFlow::Continue(())
                });
                assert!(flow.is_continue());
            }
            assert_eq!(found, expect, "in portions of {portion}");
        }
    }

    #[test]
    fn blocks_come_in_order_without_what_lies_between() {
        check(0..2, (0, 32_768), &[(0, 0, 16_384), (0, 16_384, 16_384)]);
        check(
            1..6,
            (16_384, 69_152),
            &[(0, 16_384, 16_384), (1, 0, 5_000), (2, 0, 16_384), (2, 16_384, 3_616)],
        );
        check(2..4, (32_768, 5_000), &[(1, 0, 5_000)]);
        check(3..4, (0, 0), &[]);
        check(5..99, (81_920, 3_616), &[(2, 16_384, 3_616)]);
    }

    #[test]
    fn a_break_ends_at_once() {
        let (geometry, layout) = shapes();
        let mut blocks = Blocks::new(&geometry, &layout, 0..2);
        let mut count = 0;
        let flow = blocks.feed(&[0; 32_768], &mut |_, _| {
            count += 1;
            ControlFlow::Break(())
        });
        assert!(flow.is_break());
        assert_eq!(count, 1);
    }
}
