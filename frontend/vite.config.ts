import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The page is bundled into the Python package; nothing of it is fetched from elsewhere.
export default defineConfig({
  plugins: [react()],
  base: "/",
  build: {
    outDir: "../src/perikarya/review/page",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy allows no data: addresses
    chunkSizeWarningLimit: 1500,
  },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["src/test-setup.ts"],
    restoreMocks: true,
  },
});
