/** Arrays that come as base64 of little-endian numbers. */

function bytesOf(text: string): ArrayBuffer {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
}

export const decodeRows = (text: string) => new Uint32Array(bytesOf(text));
export const decodeCodes = (text: string) => new Int32Array(bytesOf(text));
export const decodeNumbers = (text: string) => new Float32Array(bytesOf(text));
