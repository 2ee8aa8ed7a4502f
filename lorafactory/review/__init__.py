"""The local page: a person culls pictures, mends captions, chooses the save and watches the night in the browser.

    guard       who may ask at all: token, cookie, Host, Origin, the policy of the pages
    app         pages, what they load, how an error is said; routes: what can be asked, in which form (asked)
    book        a LoRA's set as the page shows it, read anew where files changed
    acts        what a person does to the set; each act is a run of step `review` that `undo` takes back
    captions    flagged phrases, tokens, find and replace, earlier texts
    checking    the check-up in the background; thumbs: small pictures, made once, by content
    saves       the comparison and its verdict; blind: which saves a person prefers without knowing which they are
    night       queue, jobs and quarantine, and the answers to them
    events      what changes while the page is open: the folder, the jobs
    room        what is held between two requests; server: the socket, the browser, the end

Templates and what they load lie beside; the look is that of all pages (`pages.css`).
"""
