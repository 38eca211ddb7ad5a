import type { StoreApi } from "zustand";
import { clickKeyPrefix } from "./clicks";
import type { Review } from "./types";

const EVERY_MS = 2_000;
const COLUMNS_EVERY_MS = 6_000;

/** Columns that the service is still at work on have no range yet. */
const isWaitingForColumns = ({ study }: Review) =>
  study?.columns.some(({ kind, range }) => kind === "number" && range === null) ?? false;

/** Start the page and keep it in step with the service, other tabs and the address; returns how to stop. */
export function listen(store: Pick<StoreApi<Review>, "getState">): () => void {
  const { start, sync, follow, renewStudy } = store.getState();
  const keepUp = () => void sync();
  const onStorage = (event: StorageEvent) => {
    if (event.key === null || event.key.startsWith(clickKeyPrefix(store.getState().study?.data_hash ?? "")))
      keepUp();
  };
  void start();
  const timer = setInterval(() => {
    if (!document.hidden || store.getState().nPending > 0) keepUp();
  }, EVERY_MS);
  const columnsTimer = setInterval(() => {
    if (!document.hidden && isWaitingForColumns(store.getState())) void renewStudy();
  }, COLUMNS_EVERY_MS);
  document.addEventListener("visibilitychange", keepUp);
  window.addEventListener("online", keepUp);
  window.addEventListener("storage", onStorage);
  window.addEventListener("popstate", follow);
  return () => {
    clearInterval(timer);
    clearInterval(columnsTimer);
    document.removeEventListener("visibilitychange", keepUp);
    window.removeEventListener("online", keepUp);
    window.removeEventListener("storage", onStorage);
    window.removeEventListener("popstate", follow);
  };
}
