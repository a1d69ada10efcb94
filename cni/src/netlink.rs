//! Messages to the kernel's netfilter (netlink(7), linux/netfilter/nfnetlink.h).

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, sendto, socket_with};

/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_REQUEST`, `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and its end.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NLMSG_ERROR`: an answer, with 0 for success.
const ANSWER: u16 = 2;

const HEADER: usize = 16;
/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tree of attributes of a message.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Bytes as they are.
    pub fn bytes(&mut self, kind: u16, bytes: &[u8]) {
        // Lengths are 16 bits wide; none of ours is near that.
        let length = u16::try_from(bytes.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A number, big-endian as netfilter has them.
    pub fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// Text, which ends with a zero.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// Attributes within an attribute.
    pub fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        /// `NLA_F_NESTED`.
        const NESTED: u16 = 0x8000;
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(kind | NESTED, &inner.0);
    }
}

/// One message to nftables.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it asks for, for errors.
    pub what: &'static str,
    /// `NFT_MSG_*`.
    pub kind: u8,
    /// `NLM_F_*`, beside those of every request.
    pub flags: u16,
    /// `NFPROTO_*`.
    pub family: u8,
    /// All else.
    pub attributes: Attributes,
}

impl Message {
    fn write(&self, to: &mut Vec<u8>, sequence: u32) {
        let kind = u16::from(NFTABLES) << 8 | u16::from(self.kind);
        let flags = REQUEST | ACKNOWLEDGE | self.flags;
        write(to, kind, flags, sequence, [self.family, 0, 0, 0], &self.attributes.0);
    }
}

fn write(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: [u8; 4],
    attributes: &[u8],
) {
    let length = u32::try_from(HEADER + family.len() + attributes.len()).unwrap_or(u32::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(flags.to_ne_bytes());
    to.extend(sequence.to_ne_bytes());
    // From us, whoever that is.
    to.extend([0; 4]);
    to.extend(family);
    to.extend(attributes);
}

/// Sends messages of which all take effect, or none.
///
/// # Errors
/// What the kernel refuses.
pub fn send_batch(messages: &[Message]) -> Result<(), String> {
    // Version 0, then the subsystem, big-endian.
    let nftables = [0, 0, 0, NFTABLES];
    let mut bytes = Vec::new();
    write(&mut bytes, BATCH_BEGIN, REQUEST, 0, nftables, &[]);
    for (sequence, message) in (1..).zip(messages) {
        message.write(&mut bytes, sequence);
    }
    write(&mut bytes, BATCH_END, REQUEST, 0, nftables, &[]);
    let socket = open()?;
    send(&socket, &bytes)?;
    let mut left = messages.len();
    while left > 0 {
        for (sequence, result) in answers(&socket)? {
            let at = usize::try_from(sequence).unwrap_or(0);
            let what =
                at.checked_sub(1).and_then(|at| messages.get(at)).map(|message| message.what);
            result.map_err(|errno| refused(what.unwrap_or("change nftables"), errno))?;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

/// Whether what a message asks for is there.
///
/// # Errors
/// The kernel does not tell.
pub fn exists(message: &Message) -> Result<bool, String> {
    let mut bytes = Vec::new();
    message.write(&mut bytes, 1);
    let socket = open()?;
    send(&socket, &bytes)?;
    loop {
        // What was found comes before the answer.
        if let Some((_, result)) = answers(&socket)?.into_iter().next() {
            return match result {
                Ok(()) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(errno) => Err(refused(message.what, errno)),
            };
        }
    }
}

fn open() -> Result<OwnedFd, String> {
    let open = || {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    };
    open().map_err(|errno| refused("open a netlink socket", errno))
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), String> {
    let kernel = SocketAddrNetlink::new(0, 0);
    let sent = sendto(socket, bytes, SendFlags::empty(), &kernel);
    sent.map(|_| ()).map_err(|errno| refused("send to nftables", errno))
}

/// What the kernel says of the message with a sequence number.
type Answer = (u32, Result<(), Errno>);

/// The answers in the next datagram.
fn answers(socket: &OwnedFd) -> Result<Vec<Answer>, String> {
    let mut buffer = [0; 32 * 1024];
    let got = recv(socket, &mut buffer, RecvFlags::empty());
    let (_, length) = got.map_err(|errno| refused("hear from nftables", errno))?;
    let mut rest = &buffer[..length.min(buffer.len())];
    let mut answers = Vec::new();
    while let Some(length) = number(rest, 0).and_then(|l| usize::try_from(l).ok()) {
        let Some(message) = rest.get(..length).filter(|m| m.len() >= HEADER) else { break };
        if let (Some(&[low, high]), Some(sequence), Some(error)) = (
            message.get(4..6).and_then(|b| b.first_chunk()),
            number(message, 8),
            number(message, HEADER),
        ) && u16::from_ne_bytes([low, high]) == ANSWER
        {
            // Negated.
            let errno = error.cast_signed().wrapping_neg();
            let result = if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) };
            answers.push((sequence, result));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answers)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// What cannot be done, why, and what to do.
fn refused(what: &str, errno: Errno) -> String {
    let advice = match errno {
        Errno::PERM | Errno::ACCESS => {
            "; it takes the capability NET_ADMIN in this network namespace"
        }
        Errno::NOENT
        | Errno::OPNOTSUPP
        | Errno::PROTONOSUPPORT
        | Errno::AFNOSUPPORT
        | Errno::INVAL => {
            "; the node's kernel must be Linux 5.2 or newer with nf_tables, nft_chain_nat and \
             nft_redir"
        }
        _ => "",
    };
    format!("cannot {what}: {errno}{advice}")
}
