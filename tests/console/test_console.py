"""An operator's work in a real browser: look, find, follow, decide; by mouse and by keyboard."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect
from serving_within import served
from story import Shown, picture, submit

from raysaga.api.http.access import Right
from raysaga.console.pages import console_router

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] > 0.99) return found;
    }
    return [255, 255, 255];
  };
  const weak = new Set();
  for (const element of document.querySelectorAll("body *:not(svg, svg *)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".skip, noscript")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.add(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return [...weak];
}"""
"""Texts whose contrast is below the 4.5 of WCAG 2.2, 1.4.3."""

COLOURS = {"runOnly": ["color-contrast"]}
"""What axe-core is asked about."""

UNNAMED = """() => [...document.querySelectorAll("input, select, textarea, button, a")]
  .filter((one) => one.checkVisibility() && !(one.labels?.length || one.textContent.trim()
    || one.getAttribute("aria-label"))).map((one) => one.outerHTML)"""


async def test_the_overview_tells_what_goes_on_and_moves(story: Shown) -> None:
    page = await story.open()
    await expect(page.get_by_role("status").first).to_have_text("engine runs")
    completed = page.locator(".tile.completed strong")
    await expect(completed).not_to_have_text("")
    before = int((await completed.inner_text()).replace(",", ""))
    await submit(story.server, "later-1", customer_id="later")
    await expect(completed).not_to_have_text(str(before))
    await expect(page.get_by_role("img", name=re.compile("A second: completed"))).to_be_visible()
    await expect(page.locator(".tile", has_text="Median time").locator("strong")).to_have_text(
        re.compile(r"\d")
    )
    await picture(page, "overview")
    await page.close()


async def test_sagas_are_found_by_filters_that_the_address_keeps(story: Shown) -> None:
    page = await story.open("sagas")
    await page.get_by_label("State").select_option("compensated")
    await page.get_by_label("Reason").fill("INSUFFICIENT_STOCK")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("tbody tr").filter(has_text="order:sold-out")).to_have_count(1)
    await expect(page.locator("tbody .chip:not(.compensated)")).to_have_count(0)
    assert "state=compensated" in page.url
    await page.reload()
    await expect(page.get_by_label("Reason")).to_have_value("INSUFFICIENT_STOCK")
    await page.goto(f"{story.server.url}/#/sagas?text=ada")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.locator("tbody a")).to_have_text("order:tea-1")
    # One of the oldest: the list looks on by itself until it is found, or there are no more.
    await page.goto(f"{story.server.url}/#/sagas?text=rare")
    await expect(page.get_by_role("link", name="order:sold-out", exact=True)).to_be_visible()
    await expect(page.locator(".far")).to_contain_text("that is all")
    await page.goto(f"{story.server.url}/#/sagas")
    await expect(page.locator("tbody tr")).to_have_count(50)
    await picture(page, "sagas", whole=False)
    await page.get_by_role("button", name="Look further").click()
    await expect(page.locator("tbody tr").filter(has_text="stuck-1")).to_have_count(1)
    await expect(page.locator(".far")).to_contain_text("that is all")
    await page.close()


async def test_a_list_that_moves_takes_neither_the_keyboard_nor_a_selection_away(
    story: Shown,
) -> None:
    page = await story.open("sagas?reason=INSUFFICIENT_STOCK")
    link = page.get_by_role("link", name="order:sold-out", exact=True)
    await link.focus()
    rare = [{"item_id": "rare", "quantity": 3}]
    await submit(story.server, "sold-out-again", items=rare)
    await expect(page.get_by_role("link", name="order:sold-out-again")).to_be_visible()
    await expect(link).to_be_focused()
    await link.evaluate("(one) => getSelection().selectAllChildren(one)")
    shown = int((await page.locator(".far").inner_text()).split()[0])
    await submit(story.server, "sold-out-later", items=rare)
    await expect(page.locator(".far")).to_contain_text(f"{shown + 1} shown")
    assert await page.evaluate("getSelection().toString()") == "order:sold-out"
    await page.evaluate("getSelection().removeAllRanges()")
    await expect(page.get_by_role("link", name="order:sold-out-later")).to_be_visible()
    await page.close()


async def test_the_search_leads_to_a_saga_and_says_if_there_is_none(story: Shown) -> None:
    page = await story.open()
    await page.keyboard.press("/")
    await page.keyboard.type("nobody")
    await page.keyboard.press("Enter")
    await expect(page.locator(".notice.bad")).to_contain_text("there is no saga")
    await page.get_by_role("searchbox").fill("sold-out")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("order:sold-out")
    await page.close()


async def test_a_saga_shows_its_timeline_its_state_and_its_history(story: Shown) -> None:
    page = await story.open("saga/hasty%3Astuck-1")
    await expect(page.locator(".title .chip")).to_have_text("parked backward")
    await expect(page.locator(".box.now text")).to_have_text("parked backward")
    undo = page.locator("tbody tr", has_text="refund (undo)")
    await expect(undo).to_have_count(2)
    await expect(page.locator(".timeline .bar.failed")).not_to_have_count(0)
    await expect(page.get_by_role("img", name=re.compile("^States of a saga"))).to_be_visible()
    await expect(
        page.get_by_role("img", name=re.compile("process_payment|process payment")).first
    ).to_be_visible()
    await picture(page, "saga")
    await page.get_by_text("History, event by event").click()
    await expect(page.locator(".raw li").first).to_contain_text("accepted")
    await page.close()


async def test_a_saga_is_followed_while_it_goes_on(story: Shown) -> None:
    page = await story.open("saga/hasty%3Astuck-3")
    await page.get_by_role("button", name="Retry hasty:stuck-3").click()
    await page.get_by_role("button", name="Send it on").click()
    await expect(page.locator(".title .chip")).to_have_text("compensated")
    await expect(page.locator(".box.now text")).to_have_text("compensated")
    await page.close()


async def test_the_inbox_offers_what_can_be_ordered_and_keeps_the_note(story: Shown) -> None:
    page = await story.open("parked")
    letter = page.get_by_role("article", name="hasty:stuck-1")
    await expect(letter).to_contain_text("COMPENSATION_STUCK at process_payment")
    await expect(letter.locator(".tag")).to_have_text(["reserve_inventory", "process_payment"])
    await picture(page, "parked")
    await letter.get_by_role("button", name="Skip").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Go on without").click()
    await expect(dialog).to_be_visible()
    await picture(page, "skip")
    await dialog.get_by_label("Why").fill("refunded by hand, ticket 812")
    await dialog.get_by_role("button", name="Go on without").click()
    await expect(page.locator(".notice")).to_contain_text("skip is on disk")
    await expect(letter).to_have_count(0)
    history = (await story.server.client.get("/sagas/hasty:stuck-1/history")).json()["rows"]
    (skipped,) = [row for row in history if row["event"] == "step_skipped"]
    assert skipped["note"] == "refunded by hand, ticket 812"
    await page.close()


async def test_an_order_is_given_by_keyboard_alone(story: Shown) -> None:
    page = await story.open("parked")
    retry = page.get_by_role("button", name="Retry hasty:stuck-2")
    await retry.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(retry).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type("the bank is back")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Nothing waits for you").first).to_be_visible()
    await page.close()


async def test_shards_and_participants_are_told(story: Shown) -> None:
    page = await story.open("engine")
    rows = page.locator("section", has_text="Participants").locator("tbody tr")
    await expect(rows).to_have_count(4)
    await expect(rows.first).to_contain_text("closed")
    await picture(page, "engine")
    await page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_each_page_can_be_read_and_every_control_has_a_name(story: Shown, theme: str) -> None:
    for place in ("", "sagas", "saga/hasty%3Astuck-1", "parked", "engine", "audit"):
        page = await story.open(place)
        await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        await expect(page.locator("h1")).to_have_count(1)
        await expect(page.locator(".empty", has_text="Loading")).to_have_count(0)
        assert await page.evaluate(UNNAMED) == [], place
        assert await page.evaluate(CONTRAST) == [], place
        # In the dark only colours are others.
        found = await Axe().run(page, options=None if theme == "light" else COLOURS)
        assert found.violations_count == 0, (place, found.generate_report())
        if place == "" and theme == "dark":
            await expect(page.locator(".tile").first).to_be_visible()
            await picture(page, "overview-dark")
        await page.close()


async def test_the_first_key_leads_past_the_navigation(story: Shown) -> None:
    page = await story.open("sagas")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.close()


async def test_the_page_asks_for_a_token_where_one_is_needed(
    tmp_path: Path, browser: Browser
) -> None:
    rights = {"ann": [Right.READ]}
    async with served(tmp_path / "data", rights=rights, routers=[console_router()]) as server:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(server.url)
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Go on").click()
        await page.get_by_label("Token").fill(server.tokens["ann"])
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        assert server.tokens["ann"] not in page.url
        await context.close()


async def test_what_a_saga_holds_never_becomes_markup(story: Shown) -> None:
    note = "<img src=x onerror=document.title='broken'>"
    await story.server.client.post("/sagas/order:none/cancel", json={"by": note, "note": note})
    await submit(story.server, "marked", customer_id="c-9")
    page = await story.open("sagas?reason=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&text=%3Cb%3E")
    await expect(page.locator("main img, main b")).to_have_count(0)
    await page.close()


async def test_the_browser_had_no_complaint_and_asked_no_other_host(story: Shown) -> None:
    page = await story.open()
    await asyncio.wait_for(page.wait_for_load_state("domcontentloaded"), 10)
    assert [text for text in story.complaints if "404" not in text] == []
    await page.close()


async def test_a_foreign_page_cannot_frame_the_console(story: Shown) -> None:
    answer = await story.server.client.get("/")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    again = await story.server.client.get("/", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
