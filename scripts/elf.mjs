// Reads what matters of a shared object: ELF-64, little-endian (System V ABI, chapters 4 and 5).
import { readFileSync } from "node:fs";

/** e_machine by Node's name of the architecture. */
export const MACHINES = { x64: 62, arm64: 183 };

const TYPE_SHARED = 3;
const SECTION_STRINGS = 3;
const SECTION_DYNAMIC = 6;
const SECTION_SYMBOLS = 11;
const SECTION_VERSIONS_NEEDED = 0x6ffffffe;
const SEGMENT_LOAD = 1;
const SEGMENT_STACK = 0x6474e551;
const TAG_NEEDED = 1;
const TAG_RPATH = 15;
const TAG_TEXTREL = 22;
const TAG_RUNPATH = 29;
const FLAG_EXECUTE = 1;

/**
 * @typedef {{ machine: number, isShared: boolean, needed: string[], searchPaths: string[], hasTextRelocations: boolean,
 *   versions: number, imports: string[], exports: string[], isStackExecutable: boolean, alignment: number }} SharedObject
 *   `versions` counts the libraries of which versioned symbols are wanted; `alignment` is the smallest of a loaded segment
 */

/**
 * @returns {SharedObject}
 * @throws RangeError when it is no ELF-64 file, or a cut-off one
 */
export function readSharedObject(file) {
  const bytes = readFileSync(file);
  if (bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new RangeError(`${file} is not a little-endian ELF-64 file`);
  }
  const sections = sectionsOf(bytes);
  const stringsOf = (section) => {
    const { offset, type } = sections[section.link];
    if (type !== SECTION_STRINGS) throw new RangeError(`${file} has names in a section of type ${type}`);
    return (at) => bytes.toString("latin1", offset + at, bytes.indexOf(0, offset + at));
  };
  const entriesOf = (type, read) =>
    sections
      .filter((section) => section.type === type)
      .flatMap((section) => {
        const text = stringsOf(section);
        const count = section.size / section.entrySize;
        return Array.from({ length: count }, (_, i) => read(section.offset + i * section.entrySize, text));
      });

  const dynamic = entriesOf(SECTION_DYNAMIC, (at, text) => {
    const tag = Number(bytes.readBigInt64LE(at));
    const value = Number(bytes.readBigUInt64LE(at + 8));
    return { tag, name: [TAG_NEEDED, TAG_RPATH, TAG_RUNPATH].includes(tag) ? text(value) : "" };
  });
  const named = (...tags) => dynamic.filter(({ tag }) => tags.includes(tag)).map(({ name }) => name);
  const symbols = entriesOf(SECTION_SYMBOLS, (at, text) => ({
    name: text(bytes.readUInt32LE(at)),
    isDefined: bytes.readUInt16LE(at + 6) !== 0,
  })).filter(({ name }) => name !== "");
  const segments = segmentsOf(bytes);
  const stack = segments.find(({ type }) => type === SEGMENT_STACK);
  return {
    machine: bytes.readUInt16LE(18),
    isShared: bytes.readUInt16LE(16) === TYPE_SHARED,
    needed: named(TAG_NEEDED),
    searchPaths: named(TAG_RPATH, TAG_RUNPATH),
    hasTextRelocations: named(TAG_TEXTREL).length > 0,
    versions: sections.filter(({ type }) => type === SECTION_VERSIONS_NEEDED).reduce((sum, { info }) => sum + info, 0),
    imports: symbols.filter(({ isDefined }) => !isDefined).map(({ name }) => name),
    exports: symbols.filter(({ isDefined }) => isDefined).map(({ name }) => name),
    // Without the header a loader assumes the worst.
    isStackExecutable: stack === undefined || (stack.flags & FLAG_EXECUTE) !== 0,
    alignment: Math.min(...segments.filter(({ type }) => type === SEGMENT_LOAD).map(({ align }) => align)),
  };
}

function sectionsOf(bytes) {
  const start = Number(bytes.readBigUInt64LE(40));
  const entrySize = bytes.readUInt16LE(58);
  return Array.from({ length: bytes.readUInt16LE(60) }, (_, i) => {
    const at = start + i * entrySize;
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      size: Number(bytes.readBigUInt64LE(at + 32)),
      link: bytes.readUInt32LE(at + 40),
      info: bytes.readUInt32LE(at + 44),
      entrySize: Number(bytes.readBigUInt64LE(at + 56)),
    };
  });
}

function segmentsOf(bytes) {
  const start = Number(bytes.readBigUInt64LE(32));
  const entrySize = bytes.readUInt16LE(54);
  return Array.from({ length: bytes.readUInt16LE(56) }, (_, i) => {
    const at = start + i * entrySize;
    return {
      type: bytes.readUInt32LE(at),
      flags: bytes.readUInt32LE(at + 4),
      align: Number(bytes.readBigUInt64LE(at + 48)),
    };
  });
}
