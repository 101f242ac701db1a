/** Files that hold secrets: read once, bounded, and pointed out when others can read them. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { badValue } from "./cli-error.ts";

/** Longest password file, bytes: its first line counts. */
const MAX_PASSWORD_FILE = 4096;
/** How much is read at a time, bytes. */
const READ_SIZE = 65_536;

/** A password file. */
export interface PasswordFile {
  /** Its first line. */
  readonly password: Uint8Array;
  /** That others may read the file; null when they may not. */
  readonly warning: string | null;
}

/** @throws CliError when there is no password to be had from it */
export function readPasswordFile(option: string, file: string): PasswordFile {
  const { bytes, isOpenToOthers } = readBounded(option, file, MAX_PASSWORD_FILE);
  const newline = bytes.indexOf(0x0a);
  const end = newline < 0 ? bytes.length : newline;
  const password = bytes.subarray(0, bytes[end - 1] === 0x0d ? end - 1 : end);
  if (password.length === 0) throw badValue(option, file, "its first line is empty, expected the password");
  return { password, warning: isOpenToOthers ? openToOthers(file) : null };
}

/** The contents of a file, and whether other users may read or change it. */
export interface SecretFile {
  readonly bytes: Uint8Array;
  readonly isOpenToOthers: boolean;
}

/**
 * Reads a file, or a pipe such as a shell's `<(command)`.
 * @param limit bytes
 * @throws CliError when it cannot be read or is longer
 */
export function readBounded(option: string, file: string, limit: number): SecretFile {
  const chunks: Uint8Array[] = [];
  let length = 0;
  let isOpenToOthers: boolean;
  try {
    const fd = openSync(file, "r");
    try {
      // Of the open file, so that it is the one that is read.
      isOpenToOthers = (fstatSync(fd).mode & 0o077) !== 0;
      for (let count = -1; count !== 0 && length <= limit; length += count) {
        const chunk = Buffer.alloc(READ_SIZE);
        count = readSync(fd, chunk);
        chunks.push(chunk.subarray(0, count));
      }
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : error;
    throw badValue(option, file, `it cannot be read (${code})`);
  }
  if (length > limit) throw badValue(option, file, `it has more than ${limit} bytes: is it the right file?`);
  return { bytes: Buffer.concat(chunks), isOpenToOthers };
}

/** The line for a file that others may read. */
export function openToOthers(file: string): string {
  return `other users of this machine may read or change ${file}: chmod 600 ${file}`;
}
