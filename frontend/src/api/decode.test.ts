import { expect, test } from "vitest";
import { decodeCodes, decodeNumbers, decodeRows } from "./decode";

const encode = (array: { buffer: ArrayBufferLike }) =>
  btoa(String.fromCharCode(...new Uint8Array(array.buffer)));

test("rows, codes and numbers come back as they were sent", () => {
  expect([...decodeRows(encode(Uint32Array.of(0, 7, 4_000_000_000)))]).toEqual([0, 7, 4_000_000_000]);
  expect([...decodeCodes(encode(Int32Array.of(-1, 0, 12)))]).toEqual([-1, 0, 12]);
  expect([...decodeNumbers(encode(Float32Array.of(-0.5, NaN, 3)))]).toEqual([-0.5, NaN, 3]);
});

test("numbers are read as little-endian, whatever made them", () => {
  expect([...decodeRows("AQAAAA==")]).toEqual([1]);
});

test("nothing is an empty array", () => {
  expect(decodeRows("")).toHaveLength(0);
});
