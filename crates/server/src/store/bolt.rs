//! The format of bbolt, the database of etcd's members: writes the file that snapshots are.
//!
//! A file is a row of pages. The first two tell where the rest begins; the others are the nodes of
//! trees, one tree a bucket and one of the buckets. A page that holds a large row goes on in the pages
//! after it.

use std::hash::Hasher;

use fnv::FnvHasher;

const PAGE_BYTES: usize = 4096;
const PAGE_HEADER_BYTES: usize = 16;

/// Both kinds of elements, of leaves and of branches, have this size.
const ELEMENT_BYTES: usize = 16;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Where the list of free pages is: after the two meta pages. It is empty.
const FREE_LIST_PAGE: u64 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// The mark of an element whose value is a bucket.
const IS_BUCKET: u32 = 1;

/// A table: rows by their keys.
pub(crate) struct Bucket {
    pub(crate) name: &'static str,
    /// In the order of the keys, each of which stands once.
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// The file that holds the buckets, which must be in the order of their names.
pub(crate) fn file(buckets: &[Bucket]) -> Vec<u8> {
    debug_assert!(buckets.is_sorted_by(|a, b| a.name < b.name));
    let mut file = File::new();
    let buckets = buckets.iter().map(|Bucket { name, rows }| {
        debug_assert!(rows.is_sorted_by(|a, b| a.key < b.key));
        let rows = rows
            .iter()
            .map(|Row { key, value }| Element::row(key, value));
        Root {
            name: name.as_bytes(),
            header: bucket_header(file.tree(rows)),
        }
    });
    let roots: Vec<_> = buckets.collect();
    let root = file.tree(roots.iter().map(Root::element));
    file.finish(root)
}

/// Where the tree of a bucket begins.
struct Root {
    name: &'static [u8],
    header: [u8; 16],
}

impl Root {
    fn element(&self) -> Element<'_> {
        Element {
            key: self.name,
            value: &self.header,
            flags: IS_BUCKET,
            child: 0,
        }
    }
}

/// The page of the root, and a sequence that etcd does not use.
fn bucket_header(root: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&root.to_le_bytes());
    header
}

/// An entry of a page: a row or a bucket in a leaf, a child in a branch.
#[derive(Clone, Copy)]
struct Element<'a> {
    key: &'a [u8],
    value: &'a [u8],
    flags: u32,
    child: u64,
}

impl<'a> Element<'a> {
    const fn row(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            value,
            flags: 0,
            child: 0,
        }
    }

    const fn child(key: &'a [u8], page: u64) -> Self {
        Self {
            key,
            value: &[],
            flags: 0,
            child: page,
        }
    }

    const fn bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len() + self.value.len()
    }
}

struct File {
    bytes: Vec<u8>,
}

impl File {
    /// A file whose meta pages are still to be written.
    fn new() -> Self {
        let mut file = Self {
            bytes: vec![0; 2 * PAGE_BYTES],
        };
        let page = file.page(FREE_LIST, &[]);
        debug_assert_eq!(page, FREE_LIST_PAGE);
        file
    }

    /// Writes a tree from its leaves up, and returns the page of its root.
    fn tree<'a>(&mut self, rows: impl Iterator<Item = Element<'a>>) -> u64 {
        let mut level = self.level(LEAF, rows);
        if level.is_empty() {
            return self.page(LEAF, &[]);
        }
        while level.len() > 1 {
            let children = level.iter().map(|&(key, page)| Element::child(key, page));
            level = self.level(BRANCH, children);
        }
        level[0].1
    }

    /// Writes the pages of one level, and returns each with its first key.
    fn level<'a>(
        &mut self,
        kind: u16,
        elements: impl Iterator<Item = Element<'a>>,
    ) -> Vec<(&'a [u8], u64)> {
        let mut pages = Vec::new();
        let mut pending: Vec<Element<'a>> = Vec::new();
        let mut bytes = PAGE_HEADER_BYTES;
        // A branch of one child would never come to an end of levels.
        let least = if kind == BRANCH { 2 } else { 1 };
        for element in elements {
            if bytes + element.bytes() > PAGE_BYTES && pending.len() >= least {
                pages.push((pending[0].key, self.page(kind, &pending)));
                pending.clear();
                bytes = PAGE_HEADER_BYTES;
            }
            bytes += element.bytes();
            pending.push(element);
        }
        if !pending.is_empty() {
            pages.push((pending[0].key, self.page(kind, &pending)));
        }
        pages
    }

    /// Writes one page, and returns its number.
    fn page(&mut self, kind: u16, elements: &[Element<'_>]) -> u64 {
        let start = self.bytes.len();
        let number = self.next_page();
        let bytes = PAGE_HEADER_BYTES + elements.iter().map(Element::bytes).sum::<usize>();
        let pages = bytes.div_ceil(PAGE_BYTES);
        self.put(&page_header(number, kind, elements.len(), pages));

        // What elements point at stands after the last of them; they tell how far it is from them.
        let mut data = elements.len() * ELEMENT_BYTES;
        for (at, element) in elements.iter().enumerate() {
            let position = number32(data - at * ELEMENT_BYTES);
            let key_bytes = number32(element.key.len());
            if kind == BRANCH {
                self.put(&position.to_le_bytes());
                self.put(&key_bytes.to_le_bytes());
                self.put(&element.child.to_le_bytes());
            } else {
                self.put(&element.flags.to_le_bytes());
                self.put(&position.to_le_bytes());
                self.put(&key_bytes.to_le_bytes());
                self.put(&number32(element.value.len()).to_le_bytes());
            }
            data += element.key.len() + element.value.len();
        }
        for element in elements {
            self.put(element.key);
            self.put(element.value);
        }
        self.bytes.resize(start + pages * PAGE_BYTES, 0);
        number
    }

    /// Writes the meta pages. Either alone would do: the second is the newer one.
    fn finish(mut self, root: u64) -> Vec<u8> {
        let pages = self.next_page();
        for number in 0..2 {
            let meta = meta_page(number, root, pages);
            let start = PAGE_BYTES * usize::from(number);
            self.bytes[start..start + meta.len()].copy_from_slice(&meta);
        }
        self.bytes
    }

    const fn next_page(&self) -> u64 {
        (self.bytes.len() / PAGE_BYTES) as u64
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

fn page_header(number: u64, kind: u16, elements: usize, pages: usize) -> [u8; PAGE_HEADER_BYTES] {
    // Each element takes some of the page's bytes, so there are never as many.
    let count = u16::try_from(elements).unwrap_or(u16::MAX);
    let mut header = [0; PAGE_HEADER_BYTES];
    header[..8].copy_from_slice(&number.to_le_bytes());
    header[8..10].copy_from_slice(&kind.to_le_bytes());
    header[10..12].copy_from_slice(&count.to_le_bytes());
    header[12..].copy_from_slice(&number32(pages - 1).to_le_bytes());
    header
}

/// What says which tree is the database's, and how many pages there are.
fn meta_page(number: u8, root: u64, pages: u64) -> Vec<u8> {
    let number = u64::from(number);
    let meta = [
        &MAGIC.to_le_bytes()[..],
        &VERSION.to_le_bytes(),
        &number32(PAGE_BYTES).to_le_bytes(),
        &0_u32.to_le_bytes(),
        &bucket_header(root),
        &FREE_LIST_PAGE.to_le_bytes(),
        &pages.to_le_bytes(),
        &number.to_le_bytes(),
    ]
    .concat();
    let mut checksum = FnvHasher::default();
    checksum.write(&meta);
    let header = page_header(number, META, 0, 1);
    [&header[..], &meta, &checksum.finish().to_le_bytes()].concat()
}

/// A number of bytes or pages. A row has at most the size of a request, far from the limit.
fn number32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
