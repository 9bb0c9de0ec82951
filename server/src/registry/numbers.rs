//! Numbers to give out, those that came back first, so that they stay small.

#[derive(Debug, Default)]
pub(super) struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let number = self.next;
            self.next += 1;
            number
        })
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.next as usize - self.free.len()
    }
}
