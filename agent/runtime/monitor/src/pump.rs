//! The container's streams: output to the log and to attached clients, input from clients.
//!
//! Output is written to the log first and then to every client that wants it. A client that does
//! not read makes the container wait (as with Docker), never the monitor; one that goes away is
//! dropped. Input of all clients goes to one bounded queue. Nothing here blocks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::protocol::{Attach, AttachEnd};
use berth_sys::poll::{Epoll, Interest};
use berth_sys::tty;

use crate::client::{Client, Owner, Typed};
use crate::jsonlog::{JsonLog, Stream};
use crate::outbox::Outbox;
use crate::watch::{Token, Watched};

/// How much is read of the container at once: a pipe's whole buffer.
const READ_SIZE: usize = 64 * 1024;

/// Input that waits for the container before clients have to wait.
const INPUT_LIMIT: usize = 64 * 1024;

/// More clients than this are refused.
pub(crate) const MAX_CLIENTS: usize = 128;

/// How much is still taken, after the last process of the container has gone, from a stream that
/// somebody outside keeps open: the biggest buffer that a pipe can have.
const DRAIN_LIMIT: usize = 1024 * 1024;

/// The ends of the container's streams that the monitor holds.
#[derive(Debug)]
pub(crate) enum Streams {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The slave is held too, so that the terminal outlives a moment in which no process of the
    /// container has it open.
    Terminal {
        master: OwnedFd,
        slave: OwnedFd,
        stdin: bool,
    },
}

/// The container's input.
#[derive(Debug)]
struct Input {
    fd: Watched,
    queue: Outbox,
    close_when_empty: bool,
}

/// An attachment that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) owner: Owner,
    pub(crate) session: u32,
    pub(crate) end: AttachEnd,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pump {
    outputs: [Option<Watched>; 2],
    input: Option<Input>,
    /// The terminal's slave.
    terminal: Option<OwnedFd>,
    stdin_once: bool,
    log: Option<JsonLog>,
    clients: Vec<Client>,
    next_session: u32,
    ended: Vec<Ended>,
    scratch: Vec<u8>,
}

impl Pump {
    pub(crate) fn new(
        epoll: &Epoll,
        streams: Streams,
        stdin_once: bool,
        log: Option<JsonLog>,
    ) -> io::Result<Pump> {
        let (outputs, stdin, terminal) = match streams {
            Streams::Pipes {
                stdin,
                stdout,
                stderr,
            } => ([Some(stdout), Some(stderr)], stdin, None),
            Streams::Terminal {
                master,
                slave,
                stdin,
            } => {
                let input = if stdin {
                    Some(berth_sys::fd::dup(&master)?)
                } else {
                    None
                };
                ([Some(master), None], input, Some(slave))
            }
        };
        for fd in outputs.iter().flatten().chain(&stdin) {
            berth_sys::fd::set_nonblocking(fd, true)?;
        }
        let [stdout, stderr] = outputs;
        let mut pump = Pump {
            outputs: [
                stdout.map(|fd| Watched::new(fd, Token::Output(0))),
                stderr.map(|fd| Watched::new(fd, Token::Output(1))),
            ],
            input: stdin.map(|fd| Input {
                fd: Watched::new(fd, Token::Input),
                queue: Outbox::default(),
                close_when_empty: false,
            }),
            terminal,
            stdin_once,
            log,
            clients: Vec::new(),
            next_session: 1,
            ended: Vec::new(),
            scratch: Vec::new(),
        };
        pump.settle(epoll);
        Ok(pump)
    }

    pub(crate) fn sessions(&self) -> u32 {
        self.clients.len() as u32
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Sets the terminal's size; `None` without a terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Option<io::Result<()>> {
        self.terminal
            .as_ref()
            .map(|slave| tty::set_winsize(slave, rows, columns))
    }

    /// Attachments that have ended since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Takes a client on: its session, and the position in the log from which it will be sent what
    /// comes.
    pub(crate) fn attach(
        &mut self,
        epoll: &Epoll,
        mut attach: Attach,
        sock: OwnedFd,
        owner: Owner,
    ) -> io::Result<(u32, u64)> {
        if self.clients.len() >= MAX_CLIENTS {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::MFILE.raw_os_error(),
            ));
        }
        let session = self.next_session;
        self.next_session += 1;
        // Nobody reads a closed input: the client is not listened to, as Docker does it.
        attach.stdin &= self.input.is_some();
        let typed = std::mem::take(&mut attach.initial).0;
        let mut client = Client::new(session, owner, sock, attach, self.terminal.is_some());
        if client.held {
            // The log has only whole lines: what has come of the current ones belongs to this client
            // too.
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(log) = self.log.as_ref().filter(|_| client.takes(stream)) {
                    client.send(stream, log.pending(stream))?;
                }
            }
        }
        self.clients.push(client);
        if !typed.is_empty() {
            let index = self.clients.len() - 1;
            if self.clients[index].typing {
                let mut bytes = Vec::new();
                let result = self.clients[index].typed_before(&typed, &mut bytes);
                self.take_input(&bytes);
                self.after_input(index, result);
            }
        }
        self.settle(epoll);
        Ok((session, self.log.as_ref().map_or(0, JsonLog::position)))
    }

    /// Begins to write to a held client; false when there is none of this session.
    pub(crate) fn proceed(&mut self, epoll: &Epoll, session: u32) -> bool {
        let Some(index) = self.find(session) else {
            return false;
        };
        self.clients[index].held = false;
        if self.clients[index].flush().is_err() {
            self.lose(index);
        }
        self.settle(epoll);
        true
    }

    /// A connection has gone: nobody will ever say `Proceed` to the clients it held.
    pub(crate) fn conn_closed(&mut self, epoll: &Epoll, conn: u32) {
        for index in 0..self.clients.len() {
            if self.clients[index].owner.conn == conn && self.clients[index].held {
                self.lose(index);
            }
        }
        self.settle(epoll);
    }

    /// The container has put something out, or closed an output.
    pub(crate) fn output_ready(&mut self, epoll: &Epoll, number: u32) {
        let stream = if number == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        self.read_output(stream);
        self.settle(epoll);
    }

    /// The container takes input, or has closed it.
    pub(crate) fn input_ready(&mut self, epoll: &Epoll, closed: bool) {
        if closed && self.terminal.is_none() {
            self.input = None;
        }
        self.flush_input();
        self.settle(epoll);
    }

    /// Something happened at a client's socket.
    pub(crate) fn client_ready(&mut self, epoll: &Epoll, session: u32, read: bool, closed: bool) {
        let Some(index) = self.find(session) else {
            return;
        };
        if self.clients[index].flush().is_err() || closed {
            self.lose(index);
        }
        if read {
            self.read_client(index);
        }
        self.settle(epoll);
    }

    /// Takes what is still in the container's outputs, whatever the clients do. With `last` they are
    /// closed afterwards, whoever holds them.
    pub(crate) fn drain(&mut self, epoll: &Epoll, last: bool) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut taken = 0;
            while let Some(count) = self.read_output(stream) {
                taken += count;
                if taken > DRAIN_LIMIT {
                    break;
                }
            }
            if last {
                self.close_output(stream);
            }
        }
        self.settle(epoll);
    }

    /// The end: the log's last lines, the clients' last bytes. Gives the clients that have not taken
    /// everything.
    pub(crate) fn finish(&mut self, epoll: &Epoll) -> Vec<Client> {
        self.drain(epoll, true);
        self.input = None;
        let mut left = Vec::new();
        for mut client in std::mem::take(&mut self.clients) {
            let result = if client.gone { Ok(()) } else { client.unload() };
            let end = match (client.end, result) {
                (Some(end), _) => end,
                (None, Ok(())) => AttachEnd::Eof,
                (None, Err(_)) => AttachEnd::ClientGone,
            };
            self.ended.push(Ended {
                owner: client.owner,
                session: client.session,
                end,
            });
            if client.is_flushed() {
                client.close(epoll);
            } else {
                left.push(client);
            }
        }
        left
    }

    fn find(&self, session: u32) -> Option<usize> {
        self.clients
            .iter()
            .position(|client| client.session == session)
    }

    /// One read of an output; the number of bytes, or `None` when there is nothing now or for ever.
    fn read_output(&mut self, stream: Stream) -> Option<usize> {
        let fd = self.outputs[stream as usize].as_ref()?;
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.reserve_exact(READ_SIZE);
        // All signals are blocked: nothing interrupts.
        let result = rustix::io::read(fd, rustix::buffer::spare_capacity(&mut bytes));
        let count = match result {
            Ok(count) if count > 0 => {
                self.put_out(stream, &bytes);
                Some(count)
            }
            Err(rustix::io::Errno::AGAIN) => None,
            // The end, or (of a terminal) EIO: the last holder has gone.
            _ => {
                self.close_output(stream);
                None
            }
        };
        bytes.clear();
        self.scratch = bytes;
        count
    }

    fn put_out(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.feed(stream, bytes);
        }
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.takes(stream) && client.end.is_none() && client.send(stream, bytes).is_err() {
                self.lose(index);
            }
        }
    }

    fn close_output(&mut self, stream: Stream) {
        if self.outputs[stream as usize].take().is_some()
            && let Some(log) = &mut self.log
        {
            log.finish(stream);
        }
    }

    fn read_client(&mut self, index: usize) {
        let room = self.input_room();
        let client = &mut self.clients[index];
        if !client.typing || room == 0 {
            return;
        }
        let mut bytes = Vec::new();
        let typed = client.read(room, &mut bytes);
        self.take_input(&bytes);
        self.after_input(index, typed);
    }

    fn after_input(&mut self, index: usize, typed: Typed) {
        let passed_on = self.closes_input();
        let client = &mut self.clients[index];
        match typed {
            Typed::Nothing | Typed::Bytes => {}
            Typed::Detach => {
                client.typing = false;
                client.end = Some(AttachEnd::Detached);
            }
            Typed::End => {
                client.typing = false;
                if !passed_on {
                    // Docker ends the whole attachment with its input, unless the input's end is
                    // passed on to the container.
                    client.end.get_or_insert(AttachEnd::ClientGone);
                }
                self.input_left();
            }
        }
    }

    /// Whether the end of a client's input ends the container's.
    fn closes_input(&self) -> bool {
        self.stdin_once && self.terminal.is_none()
    }

    /// A client has stopped typing: if it was the last, the container's input may end.
    fn input_left(&mut self) {
        let others = self.clients.iter().any(|client| client.typing);
        if self.closes_input()
            && !others
            && let Some(input) = &mut self.input
        {
            input.close_when_empty = true;
        }
        self.flush_input();
    }

    fn input_room(&self) -> usize {
        match &self.input {
            Some(input) => INPUT_LIMIT.saturating_sub(input.queue.len()),
            // Read and dropped: the end of it still matters.
            None => INPUT_LIMIT,
        }
    }

    fn take_input(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            input.queue.push(bytes);
        }
        self.flush_input();
    }

    fn flush_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        let broken = input.queue.flush(input.fd.as_fd(), false).is_err();
        if broken || (input.close_when_empty && input.queue.is_empty()) {
            self.input = None;
        }
    }

    /// A client has gone. What it sent before is still taken when there is room for it.
    fn lose(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.hang_up();
        client.end.get_or_insert(AttachEnd::ClientGone);
    }

    /// Removes clients that are done, and asks the event loop for what is waited for now.
    fn settle(&mut self, epoll: &Epoll) {
        for index in 0..self.clients.len() {
            // What a client sent before it hung up is there already: no event will tell.
            while self.clients[index].gone && self.clients[index].typing && self.input_room() > 0 {
                self.read_client(index);
            }
        }
        let open = [self.outputs[0].is_some(), self.outputs[1].is_some()];
        let mut index = 0;
        while index < self.clients.len() {
            let client = &mut self.clients[index];
            let takes = |stream| client.takes(stream) && open[stream as usize];
            let listens = takes(Stream::Stdout) || takes(Stream::Stderr);
            let wanted_any = client.takes(Stream::Stdout) || client.takes(Stream::Stderr);
            if !listens && (wanted_any || !client.typing) && !client.gone {
                client.end.get_or_insert(AttachEnd::Eof);
            }
            let done = client.is_flushed() && !(client.gone && client.typing);
            match client.end {
                Some(end) if done && !client.held => {
                    let client = self.clients.remove(index);
                    let was_typing = client.typing;
                    self.ended.push(Ended {
                        owner: client.owner,
                        session: client.session,
                        end,
                    });
                    client.close(epoll);
                    if was_typing {
                        self.input_left();
                    }
                }
                _ => index += 1,
            }
        }
        self.watch(epoll);
    }

    fn watch(&mut self, epoll: &Epoll) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let clogged = self
                .clients
                .iter()
                .any(|client| client.takes(stream) && client.end.is_none() && client.clogged());
            if let Some(fd) = &mut self.outputs[stream as usize] {
                // A failure here would mean no memory in the kernel; the next event tries again.
                let _ = fd.want(epoll, (!clogged).then_some(Interest::READ));
            }
        }
        if let Some(input) = &mut self.input {
            let interest = if input.queue.is_empty() {
                Interest::NONE
            } else {
                Interest::WRITE
            };
            let _ = input.fd.want(epoll, Some(interest));
        }
        let room = self.input_room() > 0;
        for client in &mut self.clients {
            let _ = client.watch(epoll, room);
        }
    }
}
