//! Messages of nftables (linux/netfilter/nf_tables.h): tables, chains, rules.
//!
//! Numbers in attributes are big-endian; what is compared with a register is as the
//! kernel keeps it there.

use crate::netlink::{self, Attributes, CREATE, Message};

/// Kinds of messages.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;

/// `NLM_F_APPEND`: after the chain's last rule.
const APPEND: u16 = 0x800;

/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;

/// The register through which expressions of a rule hand on values.
const REGISTER: u32 = 1;
/// The one that takes verdicts.
const VERDICT: u32 = 0;
/// `NFT_RETURN`: this chain is done with the packet.
const RETURN: i32 = -5;

/// `NFT_CMP_*`.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// `NFT_PAYLOAD_*`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Whether there is a table of this name.
///
/// # Errors
/// The kernel does not tell.
pub fn table_exists(table: Table) -> Result<bool, String> {
    netlink::exists(&table.message("look for the table", GET_TABLE, 0))
}

/// A table of family `inet`.
#[derive(Debug, Clone, Copy)]
pub struct Table(pub &'static str);

impl Table {
    /// Nothing happens when it is there.
    pub fn create(self, what: &'static str) -> Message {
        self.message(what, NEW_TABLE, CREATE)
    }

    /// With all that is in it.
    pub fn delete(self, what: &'static str) -> Message {
        self.message(what, DELETE_TABLE, 0)
    }

    fn message(self, what: &'static str, kind: u8, flags: u16) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(1, self.0);
        Message { what, kind, flags, family: INET, attributes }
    }
}

/// Where the kernel asks a chain.
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    /// For packets that come in, before it is known whom they are for.
    Prerouting,
    /// For packets of this host's own processes.
    Output,
}

/// A chain of type `nat`, at the priority of destination NAT.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: &'static str,
    /// When it is asked.
    pub hook: Hook,
}

impl Chain {
    /// The chain, without rules.
    pub fn create(self) -> Message {
        /// `NF_IP_PRI_NAT_DST`.
        const PRIORITY: i32 = -100;
        /// `NF_ACCEPT`: what no rule changes goes on.
        const ACCEPT: u32 = 1;
        let number = match self.hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        let mut attributes = Attributes::default();
        attributes.text(1, self.table.0);
        attributes.text(3, self.name);
        attributes.nested(4, |hook| {
            hook.number(1, number);
            hook.number(2, PRIORITY.cast_unsigned());
        });
        attributes.number(5, ACCEPT);
        attributes.text(7, "nat");
        let what = "create a chain of type nat";
        Message { what, kind: NEW_CHAIN, flags: CREATE, family: INET, attributes }
    }

    /// A rule at the chain's end.
    pub fn rule(self, expressions: &[Expression]) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(1, self.table.0);
        attributes.text(2, self.name);
        attributes.nested(4, |list| expressions.iter().for_each(|e| e.write(list)));
        let what = "add a rule";
        Message { what, kind: NEW_RULE, flags: CREATE | APPEND, family: INET, attributes }
    }
}

/// What is known of a packet beside its bytes (`NFT_META_*`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Meta {
    InputInterface = 6,
    OutputInterface = 7,
    SocketUser = 10,
    Family = 15,
    Protocol = 16,
}

/// `NFPROTO_*`.
#[derive(Debug, Clone, Copy)]
pub struct Family(u8);

impl Family {
    /// IPv4.
    pub const IPV4: Self = Self(2);
    /// IPv6.
    pub const IPV6: Self = Self(10);
}

/// A condition or an action of a rule.
#[derive(Debug, Clone)]
pub enum Expression {
    /// Goes on when this is so.
    Meta { key: Meta, operation: u32, value: Vec<u8> },
    /// Goes on when the packet's destination port is in this range.
    DestinationPort { first: u16, last: u16 },
    /// Goes on when the packet's destination begins with these bits. After its family.
    Destination { address: Vec<u8>, length: u8 },
    /// The chain is done.
    Return,
    /// The destination becomes this host, at this port.
    Redirect { port: u16 },
}

impl Expression {
    pub fn meta_is(key: Meta, value: &[u8]) -> Self {
        Self::Meta { key, operation: EQUAL, value: value.to_vec() }
    }

    pub fn meta_is_not(key: Meta, value: &[u8]) -> Self {
        Self::Meta { key, operation: NOT_EQUAL, value: value.to_vec() }
    }

    pub fn family_is(family: Family) -> Self {
        Self::meta_is(Meta::Family, &[family.0])
    }

    fn write(&self, list: &mut Attributes) {
        match self {
            Self::Meta { key, operation, value } => {
                expression(list, "meta", |data| {
                    data.number(1, REGISTER);
                    data.number(2, *key as u32);
                });
                compare(list, *operation, value);
            }
            Self::DestinationPort { first, last } => {
                payload(list, TRANSPORT_HEADER, 2, 2);
                if first == last {
                    compare(list, EQUAL, &first.to_be_bytes());
                } else {
                    expression(list, "range", |data| {
                        data.number(1, REGISTER);
                        data.number(2, EQUAL);
                        value(data, 3, &first.to_be_bytes());
                        value(data, 4, &last.to_be_bytes());
                    });
                }
            }
            Self::Destination { address, length } => destination(list, address, *length),
            Self::Return => expression(list, "immediate", |data| {
                data.number(1, VERDICT);
                data.nested(2, |data| {
                    data.nested(2, |verdict| verdict.number(1, RETURN.cast_unsigned()));
                });
            }),
            Self::Redirect { port } => {
                expression(list, "immediate", |data| {
                    data.number(1, REGISTER);
                    value(data, 2, &port.to_be_bytes());
                });
                expression(list, "redir", |data| data.number(1, REGISTER));
            }
        }
    }
}

fn expression(list: &mut Attributes, name: &str, write: impl FnOnce(&mut Attributes)) {
    list.nested(1, |element| {
        element.text(1, name);
        element.nested(2, write);
    });
}

/// Bytes of a header into the register.
fn payload(list: &mut Attributes, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.number(1, REGISTER);
        data.number(2, base);
        data.number(3, offset);
        data.number(4, length);
    });
}

fn compare(list: &mut Attributes, operation: u32, with: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(2, operation);
        value(data, 3, with);
    });
}

fn value(data: &mut Attributes, kind: u16, bytes: &[u8]) {
    data.nested(kind, |value| value.bytes(1, bytes));
}

fn destination(list: &mut Attributes, address: &[u8], length: u8) {
    if length == 0 {
        // Every address of the family.
        return;
    }
    // IPv4's destination follows its source at 12, IPv6's that at 8.
    let (offset, size) = if address.len() == 4 { (16, 4) } else { (24, 16) };
    payload(list, NETWORK_HEADER, offset, size);
    if usize::from(length) < address.len() * 8 {
        let mask: Vec<u8> = (0..address.len()).map(|i| mask_byte(i, length)).collect();
        expression(list, "bitwise", |data| {
            data.number(1, REGISTER);
            data.number(2, REGISTER);
            data.number(3, size);
            value(data, 4, &mask);
            value(data, 5, &vec![0; address.len()]);
        });
    }
    compare(list, EQUAL, address);
}

/// The byte at `i` of a mask of so many bits.
fn mask_byte(i: usize, length: u8) -> u8 {
    let bits = usize::from(length).saturating_sub(i * 8).min(8);
    // 0 to 8 ones from the left.
    (0xff00_u16 >> bits) as u8
}

#[cfg(test)]
mod tests {
    use super::mask_byte;

    #[test]
    fn masks_have_their_bits() {
        let mask = |length| [0, 1, 2, 3].map(|i| mask_byte(i, length));
        assert_eq!(mask(0), [0, 0, 0, 0]);
        assert_eq!(mask(8), [255, 0, 0, 0]);
        assert_eq!(mask(12), [255, 240, 0, 0]);
        assert_eq!(mask(31), [255, 255, 255, 254]);
        assert_eq!(mask(32), [255, 255, 255, 255]);
    }
}
